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


def accumulation_note(model, steps: int) -> str | None:
    """What to say where micro-batches that hide different numbers of patches are accumulated; None where they do not.

    Ranks are weighed by what they hide (``mim_mm.algorithms.global_mean``). Micro-batches cannot be: the gradient of
    one is there before it is known what the next ones will hide.

    Args:
        model: an algorithm with a ``masker``, whose ``fixed_count`` says whether all images hide the same number; one
            without that attribute is taken to vary.
        steps: micro-batches in an optimizer step.
    """
    masker = getattr(model, 'masker', None)
    if steps < 2 or masker is None:
        return None
    fixed = getattr(masker, 'fixed_count', False)
    if getattr(model, 'consistency_weight', 0):
        fixed = fixed and getattr(masker, 'fixed_overlap', True)
    if fixed:
        return None
    return (
        f'{steps} micro-batches are accumulated and {type(masker).__name__} may hide different numbers in each: '
        'each weighs the same in the step, whatever it hides, so the result depends a little on '
        'accumulative_counts. Processes are weighed by what they hide; a larger batch_size and accumulative_counts=1 '
        'give the mean over all hidden patches'
    )


@HOOKS.register_module()
class MaskSeedHook(Hook):
    """Make the masks a function of (seed, step, rank): any step can be replayed, and a resumed run goes on as it would.

    At the start it says what these masks mean for accumulated gradients (:func:`accumulation_note`).

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
        note = accumulation_note(model, getattr(getattr(runner, 'optim_wrapper', None), '_accumulative_counts', 1))
        if note:
            runner.logger.warning(note)

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

    In the first epoch it looks often enough to warn before the epoch ends, and at its end it says how things stand.
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

    def collapsed(self, mse: float, mse_patch_mean: float, consistency: float) -> bool:
        """Whether one look shows agreement without reconstruction."""
        return mse > self.useless * mse_patch_mean and consistency / 2 < self.equal * mse_patch_mean**0.5

    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs: dict | None = None) -> None:
        if not outputs or 'consistency' not in outputs:
            return
        done, epoch = runner.iter + 1, _epoch_length(runner)
        interval = min(self.interval, max(1, epoch // self.patience)) if done <= epoch else self.interval
        if done % interval and done != epoch:
            return
        mse, trivial, consistency = (_number(outputs[key]) for key in ('mse', 'mse_patch_mean', 'consistency'))
        self.looks = self.looks + 1 if self.collapsed(mse, trivial, consistency) else 0
        state = (
            f'difference between parts {consistency / 2:.4f}, mse {mse:.4f} against {trivial:.4f} for predicting each '
            'patch by its mean'
        )
        if self.looks == self.patience or (done == epoch and 0 < self.looks < self.patience):
            certain = 'has' if self.looks == self.patience else 'may have'
            runner.logger.warning(
                f'The parts agree but do not reconstruct: {state}, {self.looks} look(s) in a row. The consistency term '
                f'{certain} collapsed: lower model.consistency_weight (0.1), or add a ConsistencyRampHook.'
            )
        elif done == epoch:
            runner.logger.info(f'Agreement after the first epoch: {state}')


def _epoch_length(runner) -> int:
    """Iterations in an epoch; 0 where that is not known."""
    try:
        return len(runner.train_dataloader)
    except (AttributeError, TypeError):
        return 0


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
