"""Progressive resolution: how large the images are in which epoch, as shares of a training.

Training at a smaller size first costs less: a ViT-B MAE takes 0.51 of the FLOPs of 224 px at 160 px and 0.73 at 192 px.
Source: the dynamic resolution of FastSSL, as used by DailyMAE (160, 192, then 224 px).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

Size = tuple[int, int]
STAGES = ((0.0, 160), (0.4, 192), (0.7, 224))


class Span(NamedTuple):
    """Epochs ``first`` to ``end - 1``, counted from 0, with images of ``size`` (height, width) in pixels."""

    first: int
    end: int
    size: Size

    @property
    def text(self) -> str:
        height, width = self.size
        return f'{height} px' if height == width else f'{height} x {width} px'


def read_stages(stages: Sequence) -> tuple[tuple[float, Size], ...]:
    """``[(share of the epochs from which it holds, side in pixels or (height, width)), ...]``, checked.

    Raises:
        ValueError: no stages, a first one that does not start at 0, shares that do not ascend below 1, or a size that
            is not positive.
    """
    shown = 'e.g. stages=[(0.0, 160), (0.4, 192), (0.7, 224)]'
    if not stages or any(not isinstance(stage, Sequence) or len(stage) != 2 for stage in stages):
        raise ValueError(f'stages={stages}: give pairs of a share of the epochs and a size in pixels, {shown}')
    found = []
    for share, size in stages:
        sides = tuple(size) if isinstance(size, Sequence) else (size, size)
        if len(sides) != 2 or not all(isinstance(side, int) and side > 0 for side in sides):
            raise ValueError(f'stages: the size {size} is no number of pixels and no (height, width), {shown}')
        found.append((float(share), sides))
    shares = [share for share, _ in found]
    if shares[0] != 0 or not all(a < b for a, b in zip(shares, [*shares[1:], 1.0])):
        raise ValueError(f'stages: the shares {shares} must start at 0 and ascend, all below 1, {shown}')
    return tuple(found)


def spans(stages: Sequence[tuple[float, Size]], max_epochs: int) -> list[Span]:
    """The epochs of each stage, in a training of ``max_epochs``; a share that is no whole epoch is rounded up.

    Raises:
        ValueError: a stage would have no epoch at all.
    """
    # The small number: 0.7 * 10 is more than 7 in floating point.
    firsts = [math.ceil(share * max_epochs - 1e-9) for share, _ in stages]
    found = [Span(a, b, size) for a, b, (_, size) in zip(firsts, [*firsts[1:], max_epochs], stages)]
    empty = next((span for span in found if span.first >= span.end), None)
    if empty is not None:
        raise ValueError(
            f'{max_epochs} epochs leave none for {empty.text}: the stages start in the epochs '
            f'{[first + 1 for first in firsts]}. Train longer, or give fewer stages or other shares'
        )
    return found


def span_of(plan: Sequence[Span], epoch: int) -> Span:
    """The span of an epoch, counted from 0; epochs after the last one belong to the last span."""
    return next((span for span in plan if epoch < span.end), plan[-1])
