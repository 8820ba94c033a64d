"""mmengine's CheckpointHook with atomic, tensors-only files, which removes an old file once the new one is there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mmengine.hooks import CheckpointHook

from mim_mm.checkpoint.atomic import restore_history, to_plain
from mim_mm.engine.hooks.finite_hook import may_be_saved
from mim_mm.engine.stop.exact_hook import prepare_save
from mim_mm.registry import HOOKS


class _Later:
    """A file backend that notes what to remove."""

    def __init__(self, backend):
        self.backend, self.removals = backend, []

    def __getattr__(self, name: str):
        return getattr(self.backend, name)

    def remove(self, path) -> None:
        self.removals.append(('remove', path))

    def rmtree(self, path) -> None:
        self.removals.append(('rmtree', path))


@HOOKS.register_module()
class AtomicCheckpointHook(CheckpointHook):
    """Every option of ``CheckpointHook``; see :mod:`mim_mm.checkpoint.atomic` for what differs and why.

    A model with a value that is not finite is not saved, and no older file makes room for it.
    """

    def __init__(self, *args, backend_args: dict | None = None, **kwargs) -> None:
        super().__init__(*args, backend_args=backend_args or dict(backend='atomic_local'), **kwargs)

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

    # mmengine removes the file that falls out of max_keep_ckpts, and the former best one, before it writes the new one:
    # a full disk or a kill in between left a run that keeps one file without any.

    def _save_checkpoint_with_step(self, runner, step, meta) -> None:
        if may_be_saved(runner):  # every rank answers alike
            prepare_save(runner)
            with self._removing_afterwards():
                super()._save_checkpoint_with_step(runner, step, meta)

    def _save_best_checkpoint(self, runner, metrics) -> None:
        if self.save_best and may_be_saved(runner):
            prepare_save(runner, with_gradient=False)  # it is saved without the optimizer: nobody goes on from it
            with self._removing_afterwards():
                super()._save_best_checkpoint(runner, metrics)

    @contextmanager
    def _removing_afterwards(self) -> Iterator[None]:
        backend, later = self.file_backend, _Later(self.file_backend)
        self.file_backend = later
        try:
            yield
        finally:
            self.file_backend = backend
        best = (getattr(self, 'best_ckpt_path', None), *getattr(self, 'best_ckpt_path_dict', {}).values())
        for how, path in dict.fromkeys(later.removals):
            if path not in (self.last_ckpt, *best):  # written anew under the same name
                getattr(backend, how)(path)
