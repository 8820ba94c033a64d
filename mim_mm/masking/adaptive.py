"""How much is hidden, and from when on: the ratio that follows the image (AMR), and a warm-up of random masks.

Adaptive ratio: Choi et al., Salience-Based Adaptive Masking, ECCV 2024, arXiv 2404.08327.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor

from mim_mm.masking.plan import num_hidden
from mim_mm.registry import MODELS


@MODELS.register_module()
class AdaptiveRatio:
    """``R = base - delta_r + 2 * delta_r * mean(1[S > threshold])``: images with many salient patches hide more.

    R lies in [base - delta_r, base + delta_r] and is then clamped to [min_ratio, max_ratio]. The paper's repository
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
        low, high = self.base - self.delta_r, self.base + self.delta_r
        return max(low, self.min_ratio), min(high, self.max_ratio)

    @torch.no_grad()
    def __call__(self, salience: Tensor) -> Tensor:
        """Ratios (B,), fp32, from salience S (B, N) in [0, 1]; with 'per_batch' all entries are equal."""
        salient = (salience > self.threshold).float().mean(dim=1)
        if self.scope == 'per_batch':
            salient = self._batch_mean(salient).expand(len(salience))
        ratio = self.base - self.delta_r + 2 * self.delta_r * salient
        return ratio.clamp(self.min_ratio, self.max_ratio)

    def _batch_mean(self, salient: Tensor) -> Tensor:
        if not (self.all_reduce and dist.is_available() and dist.is_initialized()):
            return salient.mean()
        # Sum and count, since the last batch of an epoch may differ in size between ranks.
        total = torch.stack([salient.sum(), salient.new_tensor(float(len(salient)))])
        dist.all_reduce(total)
        return total[0] / total[1]


def hidden_counts(ratios: Tensor, num_patches: int) -> list[int]:
    """:func:`num_hidden` of every ratio (B,), kept within 1..N-1, as Python ints: waits for the device once.

    The ratios are rounded to 6 decimals first: 0.65 in fp32 is a little more than 0.65, and would hide 14 of 20.
    """
    low, high = 1 / num_patches, 1 - 1 / num_patches
    return [num_hidden(num_patches, min(max(round(ratio, 6), low), high)) for ratio in ratios.tolist()]


def build_ratio(ratio: float | dict | AdaptiveRatio) -> float | AdaptiveRatio:
    """A number, or the object of a ``dict(type='AdaptiveRatio', ...)``.

    Raises:
        ValueError: for a number outside (0, 1).
    """
    if isinstance(ratio, dict):
        return MODELS.build(ratio)
    if not callable(ratio) and not 0 < ratio < 1:
        raise ValueError(f'ratio is {ratio}: the share of hidden patches must lie between 0 and 1, e.g. 0.75')
    return ratio


class RandomWarmUp:
    """Mixin: random masks for the first epochs, because a guide that has learnt nothing guides nowhere.

    Args:
        random_epochs: how many epochs; epochs 0 .. random_epochs - 1 are random.
    """

    def __init__(self, random_epochs: int = 0) -> None:
        if random_epochs < 0:
            raise ValueError(f'random_epochs is {random_epochs}: give the number of epochs of random masks, 0 for none')
        self.random_epochs = random_epochs
        self.epoch: int | None = None

    def set_epoch(self, epoch: int) -> None:
        """Tell the current epoch, counted from 0; ``MaskerEpochHook`` does."""
        self.epoch = epoch

    @property
    def warming_up(self) -> bool:
        """Whether masks are still random.

        Raises:
            RuntimeError: if the masker has a warm-up and nobody told it the epoch.
        """
        if not self.random_epochs:
            return False
        if self.epoch is None:
            raise RuntimeError(
                f"{type(self).__name__} has random_epochs={self.random_epochs} and does not know the epoch: add "
                "dict(type='mim_mm.MaskerEpochHook') to custom_hooks; outside training call masker.set_epoch"
                f'({self.random_epochs}) for the masks after the warm-up'
            )
        return self.epoch < self.random_epochs
