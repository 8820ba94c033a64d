"""MaskPlan: which patches each part of an image sees, as a value that can be drawn, replayed and compared.

B images, K parts, N patches, V visible patches. Indices live in patch space 0..N-1; class tokens are the encoder's
business. True in a mask means hidden.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


def num_hidden(num_patches: int, ratio: float) -> int:
    """The one rounding rule of the project: hide ``ceil(N * ratio)`` patches, see the rest.

    It equals MAE's ``int(N * (1 - ratio))`` visible patches without its floating-point traps (N=10, ratio=0.9 keeps
    one patch here and none there), and SBAM's ``K = ceil(L * gamma)`` hidden patches.

    Raises:
        ValueError: if the ratio leaves nothing to see or nothing to predict.
    """
    hidden = math.ceil(num_patches * ratio - 1e-9)
    if not 0 < hidden < num_patches:
        raise ValueError(
            f'mask ratio {ratio} of {num_patches} patches hides {hidden}: at least one patch must be hidden and one '
            f'visible; use a ratio between {1 / num_patches:.4g} and {1 - 1 / num_patches:.4g}'
        )
    return hidden


@dataclass(frozen=True)
class MaskPlan:
    """K views of each image, every patch being visible or hidden in each view.

    Attributes:
        order: long (B, K, N), for every part a permutation of 0..N-1 whose first entries are the visible patches.
        num_visible: how many patches each of the K parts sees. A tuple of Python ints, equal for all images of the
            batch, so that shapes stay static.
        partition: True when the parts were cut from one permutation in equal groups (parallel masking): then every
            patch is hidden in exactly K-1 parts and the hidden groups stand in ``order`` in ascending part number,
            which lets the losses work on static slices.
    """

    order: Tensor
    num_visible: tuple[int, ...]
    partition: bool = False

    def __post_init__(self) -> None:
        if self.order.dim() != 3 or self.order.dtype != torch.long:
            raise ValueError(
                f'order must be a long tensor (B, K, N), got {self.order.dtype} of shape {tuple(self.order.shape)}'
            )
        parts, patches = self.order.shape[1:]
        if len(self.num_visible) != parts:
            raise ValueError(f'num_visible has {len(self.num_visible)} entries, order has {parts} parts: give one each')
        if not all(0 < v <= patches for v in self.num_visible):
            raise ValueError(f'num_visible is {self.num_visible}: every part must see between 1 and {patches} patches')

    @classmethod
    def from_scores(cls, scores: Tensor, num_visible: int) -> MaskPlan:
        """The plan that shows, in each part, the patches of smallest score.

        Args:
            scores: (B, K, N), any real dtype; ascending argsort, as in MAE (``noise`` there).
            num_visible: V, equal for all parts.
        """
        return cls(scores.argsort(dim=-1), (num_visible,) * scores.shape[1])

    @property
    def num_parts(self) -> int:
        return self.order.shape[1]

    @property
    def num_patches(self) -> int:
        return self.order.shape[2]

    @property
    def uniform(self) -> bool:
        """Whether all parts see the same number of patches."""
        return len(set(self.num_visible)) == 1

    @property
    def visible(self) -> Tensor:
        """Long (B, K, V), the visible patches; parts that see fewer than the longest are filled up with -1."""
        longest = max(self.num_visible)
        visible = self.order[:, :, :longest]
        if self.uniform:
            return visible
        rank = torch.arange(longest, device=self.order.device)
        lengths = torch.tensor(self.num_visible, device=self.order.device)
        return visible.masked_fill(rank >= lengths[:, None], -1)

    @property
    def lengths(self) -> Tensor:
        """Long (B, K), the number of visible patches."""
        lengths = torch.tensor(self.num_visible, device=self.order.device)
        return lengths.expand(self.order.shape[:2])

    @property
    def mask(self) -> Tensor:
        """Bool (B, K, N) in patch order, True = hidden."""
        lengths = torch.tensor(self.num_visible, device=self.order.device)
        hidden = torch.arange(self.num_patches, device=self.order.device) >= lengths[:, None]
        return torch.zeros_like(self.order, dtype=torch.bool).scatter_(2, self.order, hidden.expand_as(self.order))

    def equal_length_groups(self) -> list[tuple[list[int], int]]:
        """``[(parts, V), ...]``: the parts that can be run as one batch, with their common number of visible patches."""
        return [
            ([k for k, v in enumerate(self.num_visible) if v == length], length)
            for length in sorted(set(self.num_visible))
        ]


def draw_uniform(shape: tuple[int, ...], tokens: Tensor, generator: torch.Generator | None) -> Tensor:
    """Uniform noise in [0, 1) on the device of ``tokens``, fp32 whatever the autocast dtype.

    A generator of another device draws there and the noise is moved, so that a CPU generator gives the same masks on
    every machine.
    """
    device = tokens.device if generator is None else generator.device
    return torch.rand(shape, generator=generator, device=device, dtype=torch.float32).to(tokens.device)
