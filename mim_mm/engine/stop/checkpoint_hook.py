"""mmengine's CheckpointHook with atomic, tensors-only files."""

from __future__ import annotations

from pathlib import Path

from mmengine.hooks import CheckpointHook

from mim_mm.checkpoint.atomic import restore_history, to_plain
from mim_mm.engine.hooks.finite_hook import may_be_saved
from mim_mm.engine.stop.exact_hook import prepare_save
from mim_mm.registry import HOOKS


@HOOKS.register_module()
class AtomicCheckpointHook(CheckpointHook):
    """Every option of ``CheckpointHook``; see :mod:`mim_mm.checkpoint.atomic` for what differs and why.

    A model with a value that is not finite is not saved, and no older file makes room for it.
    """

    def __init__(self, *args, backend_args: dict | None = None, **kwargs) -> None:
        super().__init__(*args, backend_args=backend_args or dict(backend='atomic_local'), **kwargs)

    def _save_checkpoint_with_step(self, runner, step, meta) -> None:
        if may_be_saved(runner):  # asked before an older file is removed; every rank answers alike
            prepare_save(runner)
            super()._save_checkpoint_with_step(runner, step, meta)

    def _save_best_checkpoint(self, runner, metrics) -> None:
        if self.save_best and may_be_saved(runner):
            prepare_save(runner, with_gradient=False)  # it is saved without the optimizer: nobody goes on from it
            super()._save_best_checkpoint(runner, metrics)

    def before_train(self, runner) -> None:
        super().before_train(runner)
        if self.save_best is None:
            return
        # A resumed run may be a copy: the best checkpoint of the place it was copied from is not this run's to remove.
        for name, path in list(runner.message_hub.runtime_info.items()):
            if name.startswith('best_ckpt') and isinstance(path, str):
                here = str(Path(self.out_dir) / Path(path).name)
                runner.message_hub.update_info(name, here)
                if name == 'best_ckpt':
                    self.best_ckpt_path = here
                else:
                    self.best_ckpt_path_dict[name.removeprefix('best_ckpt_')] = here

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        plain = to_plain(checkpoint)
        checkpoint.clear()
        checkpoint.update(plain)

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        restore_history(checkpoint.get('message_hub', {}))
