"""Parallel masks guided by salience: EMAE's K disjoint parts (parallel.py) with SBAM's guide (salience.py).

Published by nobody; the definitions are ours. B images, K parts, N patches.
"""

from __future__ import annotations

import math
from fractions import Fraction

import torch
from torch import Tensor

from mim_mm.masking.adaptive import AdaptiveRatio, RandomWarmUp, build_ratio
from mim_mm.masking.base import PartCount
from mim_mm.masking.plan import MaskPlan, draw_uniform, exact_ratio, to_device
from mim_mm.masking.salience import salience
from mim_mm.registry import MODELS


def parts_of_ratio(ratio: float | Fraction, num_patches: int) -> int:
    """K, the number of parts whose share of hidden patches, 1 - 1/K, is that ratio: ``1 / (1 - ratio)`` rounded.

    Halves go up; never fewer than 2 parts (one hides nothing) or more than patches.
    """
    parts = math.floor(1 / (1 - exact_ratio(ratio)) + Fraction(1, 2))
    return min(max(parts, 2), num_patches)


@MODELS.register_module()
class SalienceParallelMasking(RandomWarmUp):
    """Cut each image into K disjoint parts by noisy salience ``S + noise * U[0, 1)``; together they show every patch.

    * ``mode='balanced'``: patches sorted by noisy salience are dealt like cards, K at a time, each round in random
      order; so every part sees the same share of salience, up to the spread within rounds.
    * ``mode='graded'``: the sorted patches are cut in K runs. Part 0 sees the most salient ones and hides the least
      salience, part K-1 sees the least salient ones and hides the most, as :class:`SalienceMasking` does.

    Parts have N // K or N // K + 1 patches, the longer ones first. With noise 0 and no warm-up 'graded' is
    deterministic.

    Args:
        num_parts: K; with ``ratio`` only that of the warm-up.
        mode: 'balanced' or 'graded'.
        ratio: None, or ``dict(type='AdaptiveRatio', ...)``: K follows the image, :func:`parts_of_ratio` of its ratio.
            With scope 'per_image' the plan has as many parts as the highest possible ratio asks for, and parts that an
            image does not have are absent (length 0); with 'per_batch' all images have the same K.
        noise: width of the uniform noise.
        logit_scale: see :func:`mim_mm.masking.salience`.
        random_epochs: epochs of parallel masks without guide first.
    """

    def __init__(
        self,
        num_parts: int = 4,
        mode: str = 'balanced',
        ratio: dict | AdaptiveRatio | None = None,
        noise: float = 0.5,
        logit_scale: float | None = None,
        random_epochs: float = 0,
    ) -> None:
        super().__init__(random_epochs)
        if num_parts < 2:
            raise ValueError(f'num_parts is {num_parts}: with fewer than 2 parts nothing is hidden; use 4')
        if mode not in ('balanced', 'graded'):
            raise ValueError(f"mode is '{mode}': use 'balanced' or 'graded'")
        if noise < 0:
            raise ValueError(f'noise is {noise}: it is the width of a uniform distribution, 0.5 as published')
        if ratio is not None and not isinstance(ratio := build_ratio(ratio), AdaptiveRatio):
            raise ValueError(f"ratio is {ratio}: give dict(type='AdaptiveRatio', ...), or num_parts for a fixed K")
        self.num_parts, self.mode, self.ratio = num_parts, mode, ratio
        self.noise, self.logit_scale = noise, logit_scale

    @property
    def fixed_count(self) -> bool:
        return self.ratio is None

    @property
    def published(self) -> str:
        return f'salience parallel K={self.num_parts}' + ('' if self.ratio is None else ', ratio by image')

    def counts(self, num_patches: int) -> list[PartCount]:
        parts = self.num_parts if self.ratio is None else parts_of_ratio(self.ratio.base, num_patches)
        sizes = [num_patches // parts + (part < num_patches % parts) for part in range(parts)]
        return [PartCount(size, num_patches - size) for size in sizes]

    def __call__(self, tokens: Tensor, generator: torch.Generator | None = None) -> MaskPlan:
        """``tokens`` (B, N, D) with position embedding, without class token; returns a plan with K parts."""
        batch, patches = tokens.shape[:2]
        if self.num_parts > patches:
            raise ValueError(f'num_parts is {self.num_parts} for {patches} patches: a part needs a patch; lower it')
        noise, shuffle = draw_uniform((2, batch, patches), tokens, generator)
        warming_up = self.warming_up
        guide = None if warming_up else salience(tokens, self.logit_scale)
        ranks = (noise if warming_up else guide + self.noise * noise).argsort(dim=1, descending=True)
        if self.ratio is None or warming_up:
            counts = [self.num_parts] * batch
        else:
            counts = [parts_of_ratio(ratio, patches) for ratio in self.ratio.exact(guide)]
        fixed = self.ratio is None or warming_up or self.ratio.scope == 'per_batch'
        parts = counts[0] if fixed else parts_of_ratio(self.ratio.bounds()[1], patches)
        lengths = torch.tensor(
            [[patches // k + (part < patches % k) if part < k else 0 for part in range(parts)] for k in counts]
        )
        owner = self._deal(ranks, shuffle, torch.tensor(counts), lengths)
        return _plan_of_owners(owner, lengths, equal=fixed and patches % parts == 0)

    def _deal(self, ranks: Tensor, shuffle: Tensor, counts: Tensor, lengths: Tensor) -> Tensor:
        """The part of each patch, long (B, N), from the patches in descending noisy salience."""
        device, patches = ranks.device, ranks.shape[1]
        place = torch.arange(patches, device=device)
        if self.mode == 'graded':
            ends = to_device(lengths.cumsum(dim=1), device)
            part = (place[None, :, None] >= ends[:, None, :]).sum(dim=2)
        else:
            counts = to_device(counts, device)[:, None]
            # Sorting round + noise shuffles each round; the last, short one goes to the first parts, which are longer.
            part = (place // counts + shuffle).argsort(dim=1).argsort(dim=1) % counts
        return torch.zeros_like(ranks).scatter_(1, ranks, part)


def _plan_of_owners(owner: Tensor, lengths: Tensor, equal: bool) -> MaskPlan:
    """The plan in which part k sees the patches it owns, then come the others in ascending part number.

    Args:
        owner: long (B, N).
        lengths: long (B, K) on the CPU, patches of each part.
        equal: whether all parts of all images are equally long.
    """
    part = torch.arange(lengths.shape[1], device=owner.device)[:, None]
    turn = torch.where(owner[:, None] == part, -1, owner[:, None])
    order = turn.argsort(dim=2, stable=True)
    if equal:
        return MaskPlan(order, tuple(lengths[0].tolist()), partition=True)
    return MaskPlan.from_lengths(order, lengths, partition=True)
