"""How much is hidden, and from when on: the ratio that follows the image (AMR), and a warm-up of random masks.

Adaptive ratio: Choi et al., Salience-Based Adaptive Masking, ECCV 2024, arXiv 2404.08327.
"""

from __future__ import annotations

import math
from fractions import Fraction

import torch
import torch.distributed as dist
from torch import Tensor

from mim_mm.masking.base import Masker
from mim_mm.masking.plan import exact_ratio
from mim_mm.registry import MODELS


@MODELS.register_module()
class AdaptiveRatio:
    """``R = base - delta_r + 2 * delta_r * mean(1[S > threshold])``: images with many salient patches hide more.

    R lies in [base - delta_r, base + delta_r] and is then clamped to [min_ratio, max_ratio]. It is computed as an exact
    fraction of the numbers as they are written, since ``ceil(N * R)`` patches are hidden. The paper's repository
    holds no value of ``delta_r`` and ``threshold``, so neither has a default. With a random patch embedding S is so
    skewed that about 1 % of the patches exceed 0.5, and R sits at ``base - delta_r``: look at S before choosing them.

    Args:
        base: r, the ratio when half of the patches are salient.
        delta_r: half the range of the ratio.
        threshold: delta; salience lies in [0, 1] and must exceed it strictly.
        scope: 'per_image', a ratio for each image (the paper); 'per_batch', the ratio of the mean over the batch for
            all of its images (the released code).
        min_ratio: lowest ratio given out.
        max_ratio: highest ratio given out; below 1, so that something stays visible.
        all_reduce: with 'per_batch' in distributed training, take the mean over the batches of all ranks. False is the
            released code: each rank has its own ratio, and waits for the one that hides least.
    """

    def __init__(
        self,
        base: float,
        delta_r: float,
        threshold: float,
        scope: str = 'per_image',
        min_ratio: float = 0.05,
        max_ratio: float = 0.95,
        all_reduce: bool = False,
    ) -> None:
        if scope not in ('per_image', 'per_batch'):
            raise ValueError(f"scope is '{scope}': use 'per_image' (the paper) or 'per_batch' (the released code)")
        if not 0 < min_ratio <= max_ratio < 1:
            raise ValueError(
                f'min_ratio={min_ratio}, max_ratio={max_ratio}: both must lie between 0 and 1, the first not above the '
                'second, e.g. 0.05 and 0.95'
            )
        if not min_ratio <= base <= max_ratio:
            raise ValueError(f'base is {base}: it must lie between min_ratio={min_ratio} and max_ratio={max_ratio}')
        if delta_r < 0 or not 0 <= threshold < 1:
            raise ValueError(f'delta_r={delta_r}, threshold={threshold}: need delta_r >= 0 and threshold in [0, 1)')
        if all_reduce and scope != 'per_batch':
            raise ValueError("all_reduce=True averages over ranks: it needs scope='per_batch'")
        self.base, self.delta_r, self.threshold = base, delta_r, threshold
        self.scope, self.all_reduce = scope, all_reduce
        self.min_ratio, self.max_ratio = min_ratio, max_ratio

    def bounds(self) -> tuple[float, float]:
        """The lowest and the highest ratio that can come out."""
        return float(self._ratio(0, 1)), float(self._ratio(1, 1))

    @torch.no_grad()
    def exact(self, salience: Tensor) -> list[Fraction]:
        """The ratios of B images from salience S (B, N) in [0, 1]; with 'per_batch' all are equal.

        Patches are counted on the device of S, which is waited for, once; the rest is whole numbers on the host.
        """
        patches = salience.shape[1]
        salient = (salience > self.threshold).sum(dim=1)
        if self.scope == 'per_batch':
            return [self._ratio(*self._batch_count(salient, patches))] * len(salience)
        counts = salient.tolist()
        ratio_of = {count: self._ratio(count, patches) for count in set(counts)}
        return [ratio_of[count] for count in counts]

    def __call__(self, salience: Tensor) -> Tensor:
        """:meth:`exact` rounded to fp32, (B,), on the device of S."""
        return torch.tensor([float(ratio) for ratio in self.exact(salience)], device=salience.device)

    def _ratio(self, salient: int, patches: int) -> Fraction:
        base, delta_r = exact_ratio(self.base), exact_ratio(self.delta_r)
        ratio = base - delta_r + 2 * delta_r * Fraction(salient, patches)
        return min(max(ratio, exact_ratio(self.min_ratio)), exact_ratio(self.max_ratio))

    def _batch_count(self, salient: Tensor, patches: int) -> tuple[int, int]:
        """Salient and all patches of the batch, or of those of all ranks, whose last ones may differ in size."""
        if not (self.all_reduce and dist.is_available() and dist.is_initialized()):
            return int(salient.sum()), len(salient) * patches
        total = torch.stack([salient.sum(), salient.new_tensor(len(salient) * patches)])
        dist.all_reduce(total)
        return tuple(total.tolist())


def hidden_counts(ratios: Tensor | list[Fraction], num_patches: int) -> list[int]:
    """:func:`mim_mm.masking.num_hidden` of every ratio (B,), kept within 1..N-1, as Python ints.

    Args:
        ratios: exact ones, as :meth:`AdaptiveRatio.exact` gives them; or an fp32 tensor, which is waited for and whose
            rounding is forgiven: 0.65 in fp32 is a little more than 0.65, and would hide 14 of 20.
    """
    slack = 0 if isinstance(ratios, list) else Fraction(1, 2**23)
    exact = ratios if isinstance(ratios, list) else [Fraction(ratio) for ratio in ratios.tolist()]
    return [min(max(math.ceil(num_patches * (ratio - slack)), 1), num_patches - 1) for ratio in exact]


def check_ratio(ratio: float | tuple[float, float]) -> tuple[float, float]:
    """A fixed ratio or a range as (low, high).

    Raises:
        ValueError: if it is neither one number in (0, 1) nor two in ascending order.
    """
    pair = tuple(ratio) if isinstance(ratio, (tuple, list)) else (ratio, ratio)
    numbers = all(isinstance(number, (int, float)) and not isinstance(number, bool) for number in pair)
    if len(pair) != 2 or not numbers or not 0 < pair[0] <= pair[1] < 1:
        raise ValueError(
            f'ratio is {ratio}: the share of hidden patches must be a number between 0 and 1, or (low, high), lowest '
            'first, for a uniform draw, e.g. 0.75 or (0.1, 0.5)'
        )
    return pair


def one_ratio(ratio: float) -> float:
    """A fixed ratio.

    Raises:
        ValueError: if it is no number in (0, 1), or a range.
    """
    if isinstance(ratio, (tuple, list)):
        raise ValueError(
            f'ratio is {ratio}: only BlockMasking and AttMask draw their ratio from a range; give a number, e.g. 0.75'
        )
    return check_ratio(ratio)[0]


def build_ratio(ratio: float | dict | AdaptiveRatio) -> float | AdaptiveRatio:
    """A number, or the object of a ``dict(type='AdaptiveRatio', ...)``.

    Raises:
        ValueError: for a number outside (0, 1).
    """
    if isinstance(ratio, dict):
        return MODELS.build(ratio)
    return ratio if callable(ratio) else one_ratio(ratio)


class RandomWarmUp(Masker):
    """A masker whose masks are random for the first epochs, because a guide that has learnt nothing guides nowhere.

    Args:
        random_epochs: how many epochs; epochs 0 .. random_epochs - 1 are random. A fraction ends inside an epoch.
    """

    def __init__(self, random_epochs: float = 0) -> None:
        if random_epochs < 0:
            raise ValueError(f'random_epochs is {random_epochs}: give the number of epochs of random masks, 0 for none')
        self.random_epochs = random_epochs

    @property
    def warming_up(self) -> bool:
        """Whether masks are still random.

        Raises:
            RuntimeError: if the masker has a warm-up and nobody told it the epoch.
        """
        if not self.random_epochs:
            return False
        if self.clock is None or self.clock.epoch is None:
            raise RuntimeError(
                f'{type(self).__name__} has random_epochs={self.random_epochs} and does not know the epoch: add '
                "dict(type='mim_mm.ClockHook') to custom_hooks (tools/train.py does), with training data that has a "
                f'length; outside training call masker.set_clock(Clock.at_epoch({self.random_epochs})), of mim_mm.clock'
                ', for the masks after the warm-up'
            )
        if self.random_epochs % 1 and self.clock.epoch_length:
            return self.clock.step < self.random_epochs * self.clock.epoch_length
        return self.clock.epoch < self.random_epochs
