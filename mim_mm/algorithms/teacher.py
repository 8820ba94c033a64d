"""A teacher: a frozen copy of parts of a model that follows them as an exponential moving average.

The copy is an ordinary submodule of the method, so it moves, is saved and is loaded with it, and a reader can jump to
``self.teacher``. :class:`Teacher` says what follows what, and when::

    self.teacher = frozen_copy(self.backbone)
    self.teachers = [Teacher({'backbone': 'teacher'}, momentum=dict(start=0.996, end=1.0))]

:class:`mim_mm.algorithms.base.Pretraining` does the rest. The copy is renewed before the first step, from weights that
were initialised or loaded, unless a checkpoint brought the teacher along; and it follows once an optimizer step, also
where gradients are accumulated. It has no gradients, so DDP does not know of it; all ranks compute the same average of
the same weights.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn

from mim_mm.clock import Clock

BUFFERS = ('copy', 'average', 'own')
MODES = ('train', 'eval')
Momentum = Callable[[Clock], float]


def frozen_copy(module: nn.Module, drop_path: bool = True) -> nn.Module:
    """A copy without gradients.

    Args:
        drop_path: False: its blocks drop no path, whatever the module's do.
    """
    made = copy.deepcopy(module).requires_grad_(False)
    for child in made.modules() if not drop_path else ():
        if hasattr(child, 'drop_prob'):
            child.drop_prob = 0.0
    return made


@dataclass(frozen=True)
class Constant:
    """The same momentum in every step."""

    value: float

    def __call__(self, clock: Clock | None) -> float:
        return self.value


@dataclass(frozen=True)
class Cosine:
    """From ``start`` in the first step to ``end`` after the last, along half a cosine (BYOL, DINO, iBOT)."""

    start: float
    end: float = 1.0

    def __call__(self, clock: Clock) -> float:
        return self.end - 0.5 * (self.end - self.start) * (1 + math.cos(math.pi * clock.share))


@dataclass(frozen=True)
class Linear:
    """From ``start`` in the first step along a line that is at ``end`` after ``stretch`` trainings (MSN, I-JEPA)."""

    start: float
    end: float = 1.0
    stretch: float = 1.0

    def __post_init__(self) -> None:
        if self.stretch < 1:
            raise ValueError(f'momentum: stretch is {self.stretch}: the line ends with the training (1) or behind it')

    def __call__(self, clock: Clock) -> float:
        return self.start + (self.end - self.start) * clock.share / self.stretch


@dataclass(frozen=True)
class Steps:
    """From ``start`` along a line over ``steps`` iterations, then ``end`` (data2vec 2.0); the first is one step along.

    With accumulated gradients a micro-batch is an iteration.
    """

    start: float
    end: float = 1.0
    steps: int = 100_000

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f'momentum: steps is {self.steps}: the line has at least one iteration')

    def __call__(self, clock: Clock) -> float:
        left = 1 - min(clock.step + 1, self.steps) / self.steps
        return self.end - (self.end - self.start) * left


@dataclass(frozen=True)
class Piecewise:
    """Linear between points ``(epoch, momentum)``, one value an epoch (BootMAE); constant before and after them."""

    points: tuple[tuple[float, float], ...]

    def __call__(self, clock: Clock) -> float:
        for (first, low), (last, high) in zip(self.points, self.points[1:]):
            if clock.epoch < last:
                return low + max(0, clock.epoch - first) / (last - first) * (high - low)
        return self.points[-1][1]


def build_momentum(momentum: float | Mapping | Sequence) -> Momentum:
    """A function of the clock from what a recipe states.

    Args:
        momentum: a number (constant), ``dict(start=0.996, end=1.0)`` (:class:`Cosine`), the same with
            ``shape='linear'`` and perhaps a ``stretch`` of at least 1 (:class:`Linear`), with ``steps=100_000``
            (:class:`Steps`), or ``[(epoch, value), ...]`` (:class:`Piecewise`).

    Raises:
        ValueError: for anything else, values outside [0, 1], or epochs that do not ascend.
    """
    values, epochs, made = [], [], None
    if isinstance(momentum, (int, float)):
        values, made = [momentum], Constant(momentum)
    elif isinstance(momentum, Mapping) and 'start' in momentum:
        options = dict(momentum)
        kinds = {'cosine': Cosine, 'linear': Linear}
        kind = Steps if 'steps' in options else kinds.get(options.pop('shape', 'cosine'))
        if kind and set(options) <= {field.name for field in fields(kind)}:
            made = kind(**options)
            values = [made.start, made.end]
    elif isinstance(momentum, Sequence) and momentum and all(isinstance(p, (list, tuple)) for p in momentum):
        made = Piecewise(tuple((epoch, value) for epoch, value in momentum))
        epochs, values = zip(*made.points)
    if made is None or not all(0 <= v <= 1 for v in values) or list(epochs) != sorted(set(epochs)):
        raise ValueError(
            f'momentum is {momentum}: give a number in [0, 1], dict(start=0.996, end=1.0) for a cosine over the '
            "training, with shape='linear' for a line, with steps=100_000 for one of so many iterations, or "
            '[(0, 0.999), (100, 0.9999)] for values at ascending epochs and lines between them'
        )
    return made


class Teacher:
    """What follows what, and how.

    Args:
        parts: ``{name of a part of the model: name of its frozen copy}``, e.g. ``{'backbone': 'teacher'}``; names as
            ``get_submodule`` takes them.
        momentum: see :func:`build_momentum`; ``copy = momentum * copy + (1 - momentum) * part``. 0 copies.
        buffers: 'copy' those of the part, 'average' them too (whole numbers are copied), or leave the copy its 'own',
            which its forward passes update (batch norms of a teacher in train mode).
        after_optimizer: follow after every optimizer step. False: the method calls :meth:`update` where it wants it.
        mode: 'train', the mode of the model (batch statistics, dropout), or 'eval', whatever the model's is.
    """

    def __init__(
        self,
        parts: Mapping[str, str],
        momentum: float | Mapping | Sequence,
        buffers: str = 'copy',
        after_optimizer: bool = True,
        mode: str = 'train',
    ) -> None:
        if buffers not in BUFFERS:
            raise ValueError(f"buffers is '{buffers}': use one of {BUFFERS}")
        if mode not in MODES:
            raise ValueError(f"mode is '{mode}': use one of {MODES}")
        self.mode = mode
        self.parts = dict(parts)
        self.momentum = build_momentum(momentum)
        self.buffers, self.after_optimizer = buffers, after_optimizer
        # Whether the copies hold something that must not be overwritten: a checkpoint's, or what training made of them.
        self.settled = False

    def begin(self, model: nn.Module) -> None:
        """Before a step: before the first one the copies are renewed, unless they were loaded."""
        self.set_mode(model)
        if not self.settled:
            self.renew(model)
            self.settled = True

    def set_mode(self, model: nn.Module) -> None:
        """Put copies that stay in eval mode there."""
        if self.mode == 'eval':
            for name in self.parts.values():
                model.get_submodule(name).eval()

    @torch.no_grad()
    def renew(self, model: nn.Module) -> None:
        """Make the copies equal to the parts, buffers included."""
        for mean, value, _ in self._pairs(model):
            mean.copy_(value)

    @torch.no_grad()
    def update(self, model: nn.Module, clock: Clock | None) -> None:
        """Let the copies follow by one step."""
        momentum = self.momentum(clock)
        for mean, value, is_buffer in self._pairs(model):
            if is_buffer and self.buffers == 'own':
                continue
            copied = is_buffer and (self.buffers == 'copy' or not mean.is_floating_point())
            if copied or momentum == 0:
                mean.copy_(value)
            else:
                mean.mul_(momentum).add_(value, alpha=1 - momentum)

    def look_for(self, state: Mapping[str, Tensor], prefix: str) -> None:
        """Settle if a checkpoint that is being loaded brings the copies along."""
        stems = tuple(f'{prefix}{name}.' for name in self.parts.values())
        self.settled = self.settled or any(key.startswith(stems) for key in state)

    def _pairs(self, model: nn.Module):
        """``(tensor of the copy, tensor of the part, whether it is a buffer)``."""
        for part, name in self.parts.items():
            own, followed = model.get_submodule(name), model.get_submodule(part)
            for mean, value in zip(own.parameters(), followed.parameters(), strict=True):
                yield mean, value, False
            for mean, value in zip(own.buffers(), followed.buffers(), strict=True):
                yield mean, value, True
