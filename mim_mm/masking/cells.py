"""Masks in larger pieces: another masker decides about cells of several patches (Pixio, Yang et al. 2025)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import torch
from torch import Tensor

from mim_mm.masking.base import (
    Around,
    PartCount,
    counts,
    fixed_count,
    fixed_overlap,
    published,
    set_grid,
)
from mim_mm.masking.grid import grid_shape
from mim_mm.masking.plan import MaskPlan
from mim_mm.registry import MODELS


@MODELS.register_module()
class CellMasking(Around):
    """Another masker on cells of ``cell`` x ``cell`` patches, each hidden or visible as a whole.

    With ``RandomMasking`` this is Pixio's mask: 4 x 4 cells on 16 x 16 patches, 12 of 16 hidden. The masker sees the
    mean token of each cell, and attention likewise; its ratio, blocks and parts count cells. Parts that share out the
    image share out cells.

    Args:
        masker: config of any masker.
        cell: side of a cell in patches, 4 in Pixio.
        grid: rows and columns of patches; None takes the square, or what the method says.

    Raises:
        ValueError: rows or columns are no whole number of cells.
    """

    def __init__(self, masker: Mapping, cell: int = 4, grid: tuple[int, int] | None = None) -> None:
        if cell < 1:
            raise ValueError(f'cell is {cell}: a cell has one patch a side or more, e.g. 4')
        self.inner = MODELS.build(dict(masker))
        self.cell, self.grid = cell, grid

    @property
    def fixed_count(self) -> bool:
        return fixed_count(self.inner)

    @property
    def fixed_overlap(self) -> bool:
        return fixed_overlap(self.inner)

    @property
    def published(self) -> str:
        return f'{published(self.inner)}, cells {self.cell} x {self.cell}'

    def counts(self, num_patches: int) -> list[PartCount]:
        size = self.cell**2
        return [PartCount(*(size * n for n in part)) for part in counts(self.inner, num_patches // size)]

    def __call__(
        self, tokens: Tensor, generator: torch.Generator | None = None, attention: Tensor | None = None
    ) -> MaskPlan:
        """``tokens`` (B, N, D), with ``attention`` (B, N) where the masker needs it; a plan of as many parts as its."""
        rows, columns = grid_shape(tokens.shape[1], self.grid)
        if rows % self.cell or columns % self.cell:
            raise ValueError(
                f'{rows} x {columns} patches are no whole number of cells of {self.cell} x {self.cell}: '
                'choose a cell that divides both'
            )
        places = self._places(rows, columns, tokens.device)
        if rows != columns:
            set_grid(self.inner, (rows // self.cell, columns // self.cell))
        options = {'attention': attention[:, places].mean(dim=-1)} if self.needs_attention else {}
        return self._expand(self.inner(tokens[:, places].mean(dim=2), generator, **options), places)

    def _places(self, rows: int, columns: int, device: torch.device) -> Tensor:
        """Long (cells, cell * cell): the patches of each cell, both row by row."""
        index = torch.arange(rows * columns, device=device).view(rows, columns)
        return index.unfold(0, self.cell, self.cell).unfold(1, self.cell, self.cell).flatten(2).flatten(0, 1)

    def _expand(self, plan: MaskPlan, places: Tensor) -> MaskPlan:
        """The plan over cells as one over patches: in place of each cell its patches, so that groups stay groups."""
        size = self.cell**2
        return dataclasses.replace(
            plan,
            order=places[plan.order].flatten(2),
            num_visible=tuple(size * n for n in plan.num_visible),
            per_image=None if plan.per_image is None else size * plan.per_image,
            num_thrown=size * plan.num_thrown,
        )
