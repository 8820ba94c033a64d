"""Tells a pretraining model where training stands: masks, ramps and teachers follow from it."""

from __future__ import annotations

from mmengine.hooks import Hook
from mmengine.runner import IterBasedTrainLoop

from mim_mm.clock import Clock
from mim_mm.engine.bare_model import bare_model
from mim_mm.engine.batch_statistics import check_accumulation
from mim_mm.masking.base import fixed_count, fixed_overlap
from mim_mm.registry import HOOKS


def accumulation_note(model, steps: int) -> str | None:
    """What to say where micro-batches that hide different numbers of patches are accumulated; None where they do not.

    Ranks are weighed by what they hide (``mim_mm.algorithms.global_mean``). Micro-batches cannot be: the gradient of
    one is there before it is known what the next ones will hide.

    Args:
        model: an algorithm with a ``masker``.
        steps: micro-batches in an optimizer step.
    """
    masker = getattr(model, 'masker', None)
    if steps < 2 or masker is None:
        return None
    if fixed_count(masker) and (fixed_overlap(masker) or not getattr(model, 'consistency_weight', 0)):
        return None
    return (
        f'{steps} micro-batches are accumulated and {type(masker).__name__} may hide different numbers in each: '
        'each weighs the same in the step, whatever it hides, so the result depends a little on '
        'accumulative_counts. Processes are weighed by what they hide; a larger batch_size and accumulative_counts=1 '
        'give the mean over all hidden patches'
    )


@HOOKS.register_module()
class ClockHook(Hook):
    """Call ``model.begin_step(Clock)`` before every iteration and ``model.end_step()`` after every optimizer step.

    So masks are a function of (seed, step, rank): any step can be replayed, and a resumed run goes on as it would have.
    An epoch is a pass over the training data; mmengine's iteration-based loop stays in epoch 0 for good, so there it is
    counted from the iterations. ``configs/_base_/default_runtime.py`` has this hook and ``tools/train.py`` adds it
    where it is missing; other models than :class:`mim_mm.algorithms.base.Pretraining` are left alone. Of several in one
    run one acts, the first that states a seed.

    At the start it says what these masks mean for accumulated gradients (:func:`accumulation_note`), and refuses these
    for methods that take something from the batch as a whole, unless the config has ``allow_accumulation=True``.

    Args:
        seed: of the masks; None takes the run's (``randomness``).

    Raises:
        AccumulationRefused: before training.
    """

    # Before all hooks that look at the model or the masker; after the step before those that save.
    priority = 'VERY_HIGH'

    def __init__(self, seed: int | None = None) -> None:
        self.seed = seed
        self.acts = False

    def before_train(self, runner) -> None:
        model, hooks = bare_model(runner), [hook for hook in runner.hooks if isinstance(hook, ClockHook)]
        self.acts = hasattr(model, 'begin_step') and self is min(hooks, key=lambda hook: hook.seed is None)
        if not self.acts:
            return
        model.set_clock(self.clock(runner))
        steps = getattr(getattr(runner, 'optim_wrapper', None), '_accumulative_counts', 1)
        allowed = bool((getattr(runner, 'cfg', None) or {}).get('allow_accumulation'))
        for note in (check_accumulation(type(model), steps, allowed), accumulation_note(model, steps)):
            if note:
                runner.logger.warning(note)

    def before_train_iter(self, runner, batch_idx: int, data_batch=None) -> None:
        if self.acts:
            bare_model(runner).begin_step(self.clock(runner))

    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs: dict | None = None) -> None:
        if self.acts and getattr(runner.optim_wrapper, 'should_update', lambda: True)():
            bare_model(runner).end_step()

    def clock(self, runner) -> Clock:
        """The moment before the iteration ``runner.iter``."""
        length = epoch_length(runner)
        epoch = runner.epoch
        if isinstance(runner.train_loop, IterBasedTrainLoop):
            epoch = runner.iter // length if length else None
        seed = runner.seed if self.seed is None else self.seed
        epochs = runner.max_iters / length if length else None
        return Clock(seed, runner.iter, epoch, runner.iter / runner.max_iters, length, epochs)


def epoch_length(runner) -> int | None:
    """Iterations in a pass over the training data; None where that is not known."""
    try:
        return len(runner.train_dataloader) or None
    except (AttributeError, TypeError):
        return None


# What recipes may still name. Each is a ClockHook, and so does what it did in any run, with or without another one.


@HOOKS.register_module()
class MaskSeedHook(ClockHook):
    """The name under which recipes state ``seed`` from before the clock."""

    def before_train(self, runner) -> None:
        super().before_train(runner)
        model = bare_model(runner)
        if not hasattr(model, 'begin_step'):
            runner.logger.warning(
                f'MaskSeedHook does nothing: {type(model).__name__} has no begin_step(clock) to draw its masks from; '
                'derive it from mim_mm.algorithms.base.Pretraining'
            )


@HOOKS.register_module()
class MaskerEpochHook(ClockHook):
    """The name under which recipes with ``random_epochs`` asked for the epoch before the clock."""


@HOOKS.register_module()
class ConsistencyRampHook(ClockHook):
    """The option ``model.consistency_ramp`` of EMAE, as recipes stated it before the clock.

    Args:
        epochs: length of the ramp in epochs (fractions allowed).

    Raises:
        ValueError: no positive length.
        TypeError: before training, for a model without a consistency term.
    """

    def __init__(self, epochs: float) -> None:
        super().__init__()
        if epochs <= 0:
            raise ValueError(f'epochs is {epochs}: a ramp needs a positive length; leave the hook out for no ramp')
        self.epochs = epochs

    def before_train(self, runner) -> None:
        model = bare_model(runner)
        if not hasattr(model, 'consistency_ramp'):
            raise TypeError(f'ConsistencyRampHook: {type(model).__name__} has no consistency term; EMAE has one')
        model.consistency_ramp = self.epochs
        super().before_train(runner)
