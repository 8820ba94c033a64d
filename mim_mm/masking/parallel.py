"""Parallel masking (Li et al., Efficient Masked Autoencoders with Self-Consistency, TPAMI 2024, Algorithm 1)."""

from __future__ import annotations

import torch
from torch import Tensor

from mim_mm.masking.plan import MaskPlan, draw_uniform
from mim_mm.registry import MODELS


def _check_divides(num_patches: int, num_parts: int) -> int:
    """N / K, or an error that names the nearest K that fit."""
    if num_patches % num_parts:
        fitting = [k for k in range(2, num_patches + 1) if num_patches % k == 0]
        below = [k for k in fitting if k < num_parts][-1:]
        above = [k for k in fitting if k > num_parts][:1]
        raise ValueError(
            f'{num_patches} patches cannot be cut into num_parts={num_parts} equal parts, and no patch may be dropped: '
            f'use num_parts={" or ".join(map(str, below + above))}, or another image or patch size'
        )
    return num_patches // num_parts


def _cut_permutation(tokens: Tensor, generator: torch.Generator | None, num_parts: int) -> Tensor:
    """Long (B, K, N/K): one random permutation of each image's patches, cut in K groups."""
    batch, patches = tokens.shape[:2]
    size = _check_divides(patches, num_parts)
    return draw_uniform((batch, patches), tokens, generator).argsort(dim=1).view(batch, num_parts, size)


@MODELS.register_module()
class ParallelMasking:
    """Cut each image into K disjoint parts of N/K random patches; part i sees ``ids[i*N/K:(i+1)*N/K]``.

    The K visible sets cover the image, so every patch is encoded once a step and predicted K-1 times.

    Args:
        num_parts: K; 4, 7 and 14 in the paper.

    Raises:
        ValueError: when called on N patches that K does not divide.
    """

    def __init__(self, num_parts: int = 4) -> None:
        if num_parts < 2:
            raise ValueError(f'num_parts is {num_parts}: with fewer than 2 parts nothing is hidden; use 4, or RandomMasking')
        self.num_parts = num_parts

    def __call__(self, tokens: Tensor, generator: torch.Generator | None = None) -> MaskPlan:
        """``tokens`` (B, N, D), of which only shape and device matter; returns a plan with K parts."""
        groups = _cut_permutation(tokens, generator, self.num_parts)
        batch, parts, size = groups.shape
        # Part k: its own group first, then the other groups in ascending number.
        turns = [[k] + [g for g in range(parts) if g != k] for k in range(parts)]
        order = groups[:, torch.tensor(turns, device=groups.device)].reshape(batch, parts, parts * size)
        return MaskPlan(order, (size,) * parts, partition=True)


@MODELS.register_module()
class ComplementaryMasking:
    """Two parts: the first sees N/K random patches, the second all the others (an ablation row of EMAE).

    The parts differ in length, so they are encoded one after the other.

    Args:
        num_parts: K of the share 1/K that the first part sees.
    """

    def __init__(self, num_parts: int = 4) -> None:
        if num_parts < 2:
            raise ValueError(f'num_parts is {num_parts}: the first part would see every patch; use 4')
        self.num_parts = num_parts

    def __call__(self, tokens: Tensor, generator: torch.Generator | None = None) -> MaskPlan:
        """``tokens`` (B, N, D); returns a plan with 2 parts of N/K and N - N/K visible patches."""
        groups = _cut_permutation(tokens, generator, self.num_parts)
        ids, size = groups.flatten(1), groups.shape[2]
        order = torch.stack([ids, torch.cat([ids[:, size:], ids[:, :size]], dim=1)], dim=1)
        return MaskPlan(order, (size, ids.shape[1] - size))
