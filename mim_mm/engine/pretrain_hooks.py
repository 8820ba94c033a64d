"""Hooks of pretraining: replayable masks, a ramp for the consistency term, and an alarm for its collapse."""

from __future__ import annotations

import math

import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook

from mim_mm.engine.bare_model import bare_model
from mim_mm.registry import HOOKS


def _number(value: torch.Tensor | float) -> float:
    return float(value.detach()) if isinstance(value, torch.Tensor) else float(value)


def mask_seed(seed: int, step: int, rank: int) -> int:
    """Seed of the masks of one step on one rank: distinct for every (step, rank) below 2**20 ranks."""
    return (seed * 1_000_003 + step) * 2**20 + rank


@HOOKS.register_module()
class MaskSeedHook(Hook):
    """Make the masks a function of (seed, step, rank): any step can be replayed, and a resumed run goes on as it would.

    Args:
        seed: None takes the run's seed (``randomness``).
    """

    priority = 'VERY_HIGH'

    def __init__(self, seed: int | None = None) -> None:
        self.seed = seed

    def before_train(self, runner) -> None:
        model = bare_model(runner)
        device = next(model.parameters()).device
        model.mask_generator = torch.Generator(device=device)
        self.base = runner.seed if self.seed is None else self.seed

    def before_train_iter(self, runner, batch_idx: int, data_batch=None) -> None:
        bare_model(runner).mask_generator.manual_seed(mask_seed(self.base, runner.iter, get_rank()) % 2**63)


@HOOKS.register_module()
class ConsistencyRampHook(Hook):
    """Raise the consistency term linearly from 0 to its weight over the first epochs.

    Args:
        epochs: length of the ramp in epochs (fractions allowed).
    """

    def __init__(self, epochs: float) -> None:
        if epochs <= 0:
            raise ValueError(f'epochs is {epochs}: a ramp needs a positive length; leave the hook out for no ramp')
        self.epochs = epochs

    def before_train_iter(self, runner, batch_idx: int, data_batch=None) -> None:
        length = self.epochs * len(runner.train_dataloader)
        bare_model(runner).consistency_scale.fill_(min(1.0, runner.iter / length))


@HOOKS.register_module()
class AgreementWatchHook(Hook):
    """Warn when the parts agree with each other without reconstructing the image.

    Self-consistency is also satisfied by predicting the same grey everywhere. The sign of it: the reconstruction is
    hardly better than predicting the mean of each patch (``mse`` near ``mse_patch_mean``) while the predictions of
    different parts are nearly equal. ``consistency`` is the sum of two equal absolute differences, so half of it is
    the mean difference between two predictions, set here against the standard deviation of the target.

    Args:
        interval: iterations between looks.
        patience: looks in a row before the warning, so that the start of training does not raise it.
        useless: share of ``mse_patch_mean`` above which the reconstruction counts as useless.
        equal: difference between parts, in standard deviations of the target, below which they count as agreeing.
    """

    def __init__(self, interval: int = 100, patience: int = 5, useless: float = 0.9, equal: float = 0.02) -> None:
        self.interval, self.patience = interval, patience
        self.useless, self.equal = useless, equal
        self.looks = 0

    def collapsed(self, mse: float, mse_patch_mean: float, consistency: float) -> bool:
        """Whether one look shows agreement without reconstruction."""
        return mse > self.useless * mse_patch_mean and consistency / 2 < self.equal * mse_patch_mean**0.5

    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs: dict | None = None) -> None:
        if not outputs or 'consistency' not in outputs or not self.every_n_train_iters(runner, self.interval):
            return
        mse, trivial, consistency = (_number(outputs[key]) for key in ('mse', 'mse_patch_mean', 'consistency'))
        self.looks = self.looks + 1 if self.collapsed(mse, trivial, consistency) else 0
        if self.looks == self.patience:
            runner.logger.warning(
                f'The parts agree (difference {consistency / 2:.4f}) but do not reconstruct: mse {mse:.4f} against '
                f'{trivial:.4f} for predicting each patch by its mean, {self.patience} looks in a row. The consistency '
                'term has collapsed: lower model.consistency_weight (0.1), or add a ConsistencyRampHook.'
            )


@HOOKS.register_module()
class FiniteLossHook(Hook):
    """Stop a run whose loss is no longer a number, before more checkpoints are overwritten with what it left.

    Args:
        interval: iterations between looks; each look waits for the device.

    Raises:
        FloatingPointError: naming the iteration and the values of that step.
    """

    def __init__(self, interval: int = 50) -> None:
        self.interval = interval

    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs: dict | None = None) -> None:
        if not outputs or not self.every_n_train_iters(runner, self.interval):
            return
        values = {key: _number(value) for key, value in outputs.items()}
        if not all(math.isfinite(value) for value in values.values()):
            raise FloatingPointError(
                f'iteration {runner.iter + 1}: {values} is not finite; no step from here can be trusted. Resume from '
                'an earlier checkpoint (--resume PATH) with a lower lr, or set optim_wrapper.clip_grad.max_norm=1'
            )
