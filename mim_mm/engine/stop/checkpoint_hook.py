"""mmengine's CheckpointHook with atomic, tensors-only files."""

from __future__ import annotations

from mmengine.hooks import CheckpointHook

from mim_mm.checkpoint.atomic import restore_history, to_plain
from mim_mm.engine.hooks.finite_hook import may_be_saved
from mim_mm.registry import HOOKS


@HOOKS.register_module()
class AtomicCheckpointHook(CheckpointHook):
    """Every option of ``CheckpointHook``; see :mod:`mim_mm.checkpoint.atomic` for what differs and why.

    A model with a value that is not finite is not saved, and no older file makes room for it.
    """

    def __init__(self, *args, backend_args: dict | None = None, **kwargs) -> None:
        super().__init__(*args, backend_args=backend_args or dict(backend='atomic_local'), **kwargs)

    def _save_checkpoint_with_step(self, runner, step, meta) -> None:
        if may_be_saved(runner):  # asked before an older file is removed
            super()._save_checkpoint_with_step(runner, step, meta)

    def _save_best_checkpoint(self, runner, metrics) -> None:
        if self.save_best and may_be_saved(runner):
            super()._save_best_checkpoint(runner, metrics)

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        plain = to_plain(checkpoint)
        checkpoint.clear()
        checkpoint.update(plain)

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        restore_history(checkpoint.get('message_hub', {}))
