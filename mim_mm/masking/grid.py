"""Grid-wise masking (He et al. 2022, section 4: "regularly keeps one of every four patches")."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mim_mm.masking.base import Masker, PartCount
from mim_mm.masking.plan import MaskPlan, draw_uniform
from mim_mm.registry import MODELS


def grid_shape(num_patches: int, grid: tuple[int, int] | None = None) -> tuple[int, int]:
    """Rows and columns of N patches: ``grid`` if given, else the square.

    Raises:
        ValueError: if N is not square, or not what ``grid`` says.
    """
    rows, columns = grid or (math.isqrt(num_patches),) * 2
    if rows * columns != num_patches:
        raise ValueError(
            f'{num_patches} patches are not a grid of {rows} x {columns}: '
            + ('give the grid of the images you feed' if grid else 'pass grid=(rows, columns)')
        )
    return rows, columns


@MODELS.register_module()
class GridMasking(Masker):
    """Keep one patch of every ``stride x stride`` cell and hide the others: a ratio of ``1 - 1 / stride**2``.

    The paper names the pattern and shows a picture; no code was released.

    Args:
        stride: side of a cell in patches; 2 hides 75 %.
        place: which patch of a cell is kept. 'image': one place an image, the same in all its cells; 'fixed': always
            the top left one, so that the encoder never sees the others; 'cell': drawn for each cell.
        grid: rows and columns; None takes the square.
    """

    fixed_count = True

    def __init__(self, stride: int = 2, place: str = 'image', grid: tuple[int, int] | None = None) -> None:
        if stride < 2:
            raise ValueError(f'stride is {stride}: with fewer than 2 patches a side nothing is hidden; use 2')
        if place not in ('image', 'fixed', 'cell'):
            raise ValueError(f"place is '{place}': use 'image', 'fixed' or 'cell'")
        self.stride, self.place, self.grid = stride, place, grid

    @property
    def published(self) -> str:
        return 'grid'

    def counts(self, num_patches: int) -> list[PartCount]:
        visible = num_patches // self.stride**2
        return [PartCount(visible, num_patches - visible)]

    def __call__(self, tokens: Tensor, generator: torch.Generator | None = None) -> MaskPlan:
        """``tokens`` (B, N, D), of which only shape and device matter; returns a plan with K = 1."""
        batch, patches = tokens.shape[:2]
        rows, columns = grid_shape(patches, self.grid)
        side = self.stride
        if rows % side or columns % side:
            raise ValueError(
                f'{rows} x {columns} patches are not a whole number of {side} x {side} cells: images would keep '
                'different numbers of patches; choose a stride that divides both'
            )
        drawn = {'image': (batch, 1, 1), 'cell': (batch, rows // side, columns // side), 'fixed': ()}[self.place]
        if drawn:
            kept = (draw_uniform(drawn, tokens, generator) * side**2).long().clamp(max=side**2 - 1)  # fp32 may round up
        else:
            kept = torch.zeros(batch, 1, 1, dtype=torch.long, device=tokens.device)
        kept = kept.repeat_interleave(rows // kept.shape[1], 1).repeat_interleave(columns // kept.shape[2], 2)
        row = torch.arange(rows, device=tokens.device)[:, None] % side
        column = torch.arange(columns, device=tokens.device) % side
        hidden = (row * side + column) != kept
        # Stable, so that each half stays in patch order.
        order = hidden.flatten(1).long().argsort(dim=1, stable=True)
        return MaskPlan(order[:, None], (patches // side**2,))
