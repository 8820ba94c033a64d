"""Parallel masking (Li et al., Efficient Masked Autoencoders with Self-Consistency, TPAMI 2024, Algorithm 1)."""

from __future__ import annotations

import torch
from torch import Tensor

from mim_mm.masking.base import Masker
from mim_mm.masking.plan import MaskPlan, draw_uniform
from mim_mm.registry import MODELS


def _permute(tokens: Tensor, generator: torch.Generator | None, num_parts: int) -> Tensor:
    """Long (B, N): one random permutation of each image's patches.

    Raises:
        ValueError: if there are more parts than patches.
    """
    batch, patches = tokens.shape[:2]
    if num_parts > patches:
        raise ValueError(
            f'{patches} patches cannot be cut into num_parts={num_parts}, some of which would see nothing: '
            f'use num_parts between 2 and {patches}, or larger images or smaller patches'
        )
    return draw_uniform((batch, patches), tokens, generator).argsort(dim=1)


@MODELS.register_module()
class ParallelMasking(Masker):
    """Cut each image into K disjoint parts of N/K random patches; part i sees ``ids[i*N/K:(i+1)*N/K]``.

    The K visible sets cover the image, so every patch is encoded once a step and predicted K-1 times. The paper takes
    only K that divide N; with any other K the first N mod K parts see one patch more than the rest.

    Args:
        num_parts: K; 4, 7 and 14 in the paper.

    Raises:
        ValueError: when called on fewer than K patches.
    """

    fixed_count = True

    def __init__(self, num_parts: int = 4) -> None:
        if num_parts < 2:
            raise ValueError(f'num_parts is {num_parts}: one part alone hides nothing; use 4, or RandomMasking')
        self.num_parts = num_parts

    @property
    def published(self) -> str:
        return f'parallel K={self.num_parts}'

    def __call__(self, tokens: Tensor, generator: torch.Generator | None = None) -> MaskPlan:
        """``tokens`` (B, N, D), of which only shape and device matter; returns a plan with K parts."""
        ids, parts = _permute(tokens, generator, self.num_parts), self.num_parts
        pieces = ids.tensor_split(parts, dim=1)
        # Part k: its own group first, then the other groups in ascending number.
        turns = [torch.cat([pieces[k], *pieces[:k], *pieces[k + 1 :]], dim=1) for k in range(parts)]
        return MaskPlan(torch.stack(turns, dim=1), tuple(piece.shape[1] for piece in pieces), partition=True)


@MODELS.register_module()
class ComplementaryMasking(Masker):
    """Two parts: the first sees N/K random patches, the second all the others (an ablation row of EMAE).

    N/K is rounded down. The parts differ in length, so they are encoded packed.

    Args:
        num_parts: K of the share 1/K that the first part sees.
    """

    fixed_count = True

    def __init__(self, num_parts: int = 4) -> None:
        if num_parts < 2:
            raise ValueError(f'num_parts is {num_parts}: the first part would see every patch; use 4')
        self.num_parts = num_parts

    @property
    def published(self) -> str:
        return 'complementary'

    def __call__(self, tokens: Tensor, generator: torch.Generator | None = None) -> MaskPlan:
        """``tokens`` (B, N, D); returns a plan with 2 parts of N/K and N - N/K visible patches."""
        ids = _permute(tokens, generator, self.num_parts)
        size = ids.shape[1] // self.num_parts
        order = torch.stack([ids, torch.cat([ids[:, size:], ids[:, :size]], dim=1)], dim=1)
        return MaskPlan(order, (size, ids.shape[1] - size))
