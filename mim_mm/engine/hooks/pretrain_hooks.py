"""Alarm of pretraining: a consistency term that collapses."""

from __future__ import annotations

import torch
from mmengine.hooks import Hook

from mim_mm.engine.hooks.clock_hook import epoch_length
from mim_mm.engine.hooks.harmless import harmless
from mim_mm.engine.hooks.later import Later
from mim_mm.registry import HOOKS

LOOKED_AT = ('mse', 'mse_patch_mean', 'consistency')


@HOOKS.register_module()
class AgreementWatchHook(Hook):
    """Warn when the parts agree with each other without reconstructing the image.

    Self-consistency is also satisfied by predicting the same grey everywhere. The sign of it: the reconstruction is
    hardly better than predicting the mean of each patch (``mse`` near ``mse_patch_mean``) while the predictions of
    different parts are nearly equal. ``consistency`` is the sum of two equal absolute differences, so half of it is
    the mean difference between two predictions, set here against the standard deviation of the target.

    In the first epoch it looks often enough to warn before the epoch ends, and at its end it says how things stand.
    Nothing waits for a GPU: what it shows is read when it has arrived, an iteration or so later.
    Agreement that costs reconstruction without ending in a constant is not collapse and raises no warning; it shows in
    these figures beside those of a run with ``consistency_weight=0.1``.

    Args:
        interval: iterations between looks; in the first epoch at most a ``patience``-th of it.
        patience: looks in a row before the warning, so that the start of training does not raise it.
        useless: share of ``mse_patch_mean`` above which the reconstruction counts as useless.
        equal: difference between parts, in standard deviations of the target, below which they count as agreeing.
    """

    changes_learning = False

    def __init__(self, interval: int = 100, patience: int = 5, useless: float = 0.9, equal: float = 0.02) -> None:
        self.interval, self.patience = interval, patience
        self.useless, self.equal = useless, equal
        self.looks = 0
        # Looks whose numbers are not here yet, and whether they are the last of the first epoch.
        self.underway: list[tuple[bool, Later]] = []

    def collapsed(self, mse: float, mse_patch_mean: float, consistency: float) -> bool:
        """Whether one look shows agreement without reconstruction."""
        return mse > self.useless * mse_patch_mean and consistency / 2 < self.equal * mse_patch_mean**0.5

    @harmless
    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs: dict | None = None) -> None:
        if not outputs or 'consistency' not in outputs:
            return
        done, epoch = runner.iter + 1, epoch_length(runner) or 0
        interval = min(self.interval, max(1, epoch // self.patience)) if done <= epoch else self.interval
        if done % interval == 0 or done == epoch:
            values = torch.stack([torch.as_tensor(outputs[key]).detach().float() for key in LOOKED_AT])
            self.underway.append((done == epoch, Later(values)))
        while self.underway and self.underway[0][1].arrived:
            self._look(runner, *self.underway.pop(0))

    @harmless
    def after_train(self, runner) -> None:
        while self.underway:
            self._look(runner, *self.underway.pop(0))

    def _look(self, runner, first_epoch_ends: bool, values: Later) -> None:
        mse, trivial, consistency = values.tolist()
        self.looks = self.looks + 1 if self.collapsed(mse, trivial, consistency) else 0
        state = (
            f'difference between parts {consistency / 2:.4f}, mse {mse:.4f} against {trivial:.4f} for predicting each '
            'patch by its mean'
        )
        if self.looks == self.patience or (first_epoch_ends and 0 < self.looks < self.patience):
            certain = 'has' if self.looks == self.patience else 'may have'
            runner.logger.warning(
                f'The parts agree but do not reconstruct: {state}, {self.looks} look(s) in a row. The consistency term '
                f'{certain} collapsed: lower model.consistency_weight (0.1), or set model.consistency_ramp, in epochs.'
            )
        elif first_epoch_ends:
            runner.logger.info(f'Agreement after the first epoch: {state}')
