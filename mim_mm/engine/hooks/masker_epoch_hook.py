"""Tells a masker the epoch, for strategies that change with it (a warm-up of random masks)."""

from __future__ import annotations

from mmengine.hooks import Hook
from mmengine.runner import IterBasedTrainLoop

from mim_mm.engine.bare_model import bare_model
from mim_mm.registry import HOOKS


@HOOKS.register_module()
class MaskerEpochHook(Hook):
    """Call ``model.masker.set_epoch(epoch)`` before each epoch, and before training, for a resumed run.

    Models without a masker, and maskers without ``set_epoch``, are left alone, so the hook may stand in any recipe.
    mmengine's iteration-based loop stays in epoch 0 for good: there an epoch is one pass over the training data,
    counted before every iteration.
    """

    priority = 'VERY_HIGH'

    def before_train(self, runner) -> None:
        self._tell(runner)

    def before_train_epoch(self, runner) -> None:
        self._tell(runner)

    def before_train_iter(self, runner, batch_idx: int, data_batch=None) -> None:
        if isinstance(runner.train_loop, IterBasedTrainLoop):
            self._tell(runner)

    def _tell(self, runner) -> None:
        model = bare_model(runner)
        tell = getattr(getattr(model, 'masker', None), 'set_epoch', None)
        if tell is None:
            return
        if isinstance(runner.train_loop, IterBasedTrainLoop):
            tell(runner.iter // len(runner.train_dataloader))
        else:
            tell(runner.epoch)
