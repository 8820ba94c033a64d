"""Block-wise masking (Bao et al., BEiT, ICLR 2022, Algorithm 1; iBOT's blocks are the same with its own counts)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mim_mm.masking.adaptive import check_ratio
from mim_mm.masking.base import Masker, PartCount, ratio_text
from mim_mm.masking.grid import grid_shape
from mim_mm.masking.plan import MaskPlan, draw_on_host, draw_uniform, exact_ratio, num_hidden, to_device
from mim_mm.registry import MODELS

FILLS = ('random', 'blocks', 'none')
# Proposals drawn at once; a mask of 75 patches takes about 10 to 25.
ROUND = 16
# BEiT gives up after 10 proposals in a row that do not fit. With fill='blocks' (CAE), which the sources let run without
# end, the rest is filled at random after this many.
PATIENCE = {'random': 10, 'none': 10, 'blocks': 500}


@MODELS.register_module()
class BlockMasking(Masker):
    """Hide rectangles until ``ceil(N * ratio)`` patches are hidden; one part an image.

    With a range as ratio every image draws its own, uniformly, and the plan is ragged.

    A proposal has an area uniform in [min_block, patches still to hide] and an aspect ratio (height / width) uniform
    in the logarithm over [min_aspect, 1 / min_aspect]; ``height = round(sqrt(area * aspect))`` and
    ``width = round(sqrt(area / aspect))``, both smaller than the grid; its corner is uniform over all places where it
    fits, the last row and column included. It is taken if it adds at least one patch and no more than are still to
    hide. After 10 proposals in a row that are not taken the mask is finished: BEiT's masks stay a bit below 75 of 196.

    The defaults are BEiT's. iBOT: ``ratio=(0.1, 0.5), fill='none', round_down=True``. CAE:
    ``ratio=0.5, fill='blocks'``. BootMAE: ``ratio=147/196, block_ratio=120/196, max_block=60, fill='blocks', roll=3``.

    Args:
        ratio: share of hidden patches, 75 of 196 in BEiT; or (low, high) of a uniform draw for each image, as in iBOT.
        min_block: smallest area proposed; None takes iBOT's ``(min(rows, columns) // 3) ** 2``, which is BEiT's 16 on
            14 x 14 patches and fits other grids.
        max_block: largest area proposed; None, as BEiT: no limit but the count.
        min_aspect: smallest height / width.
        fill: what happens to patches that the blocks left over. 'random' hides single patches drawn at random, so that
            all images hide the same number and shapes are static; 'blocks' goes on with blocks to the exact number
            (CAE, mmpretrain); 'none' leaves them visible as BEiT does: the plan is ragged.
        grid: rows and columns; None takes the square.
        block_ratio: what blocks hide at most; the rest up to ``ratio`` are single patches drawn at random. None: all
            that blocks can hide.
        roll: change roles: a number k is drawn uniformly from 0..roll once a call, and in every image k hidden patches
            (of the blocks, as long as these hide so many) become visible and k visible ones hidden. BootMAE has 3.
        round_down: with ``fill='none'``, hide no more than ``N * ratio`` and propose areas up to what is left of that
            number unrounded, as iBOT does.
    """

    def __init__(
        self,
        ratio: float | tuple[float, float] = 75 / 196,
        min_block: int | None = None,
        max_block: int | None = None,
        min_aspect: float = 0.3,
        fill: str = 'random',
        grid: tuple[int, int] | None = None,
        block_ratio: float | None = None,
        roll: int = 0,
        round_down: bool = False,
    ) -> None:
        low, high = check_ratio(ratio)
        if fill not in FILLS:
            raise ValueError(f"fill is '{fill}': use one of {FILLS}")
        if not 0 < min_aspect <= 1:
            raise ValueError(f'min_aspect is {min_aspect}: height / width is in [min_aspect, 1 / min_aspect], e.g. 0.3')
        if min_block is not None and min_block < 1 or max_block is not None and max_block < (min_block or 1):
            raise ValueError(f'min_block={min_block}, max_block={max_block}: need 1 <= min_block <= max_block')
        if block_ratio is not None and (fill == 'none' or not 0 < block_ratio <= low):
            raise ValueError(
                f"block_ratio={block_ratio} with ratio={ratio} and fill='{fill}': blocks hide a part, single ones the "
                "rest: give 0 < block_ratio <= ratio, and fill 'random' or 'blocks'"
            )
        if roll and (roll < 0 or fill == 'none'):
            raise ValueError(f"roll={roll} with fill='{fill}': need roll >= 0, and 'random' or 'blocks' if above 0")
        if round_down and fill != 'none':
            raise ValueError(f"round_down=True with fill='{fill}': only fill='none' may hide fewer than were asked for")
        self.block_ratio, self.roll, self.round_down = block_ratio, roll, round_down
        self.ratio, self.fill, self.grid = (low, high), fill, grid
        self.min_block, self.max_block, self.min_aspect = min_block, max_block, min_aspect

    @property
    def fixed_count(self) -> bool:
        return self.ratio[0] == self.ratio[1] and self.fill != 'none'

    @property
    def published(self) -> str:
        return f'block {ratio_text(self.ratio)}'

    def counts(self, num_patches: int) -> list[PartCount]:
        """What is aimed at: ``fill='none'`` stays a little below."""
        hidden = num_hidden(num_patches, sum(map(exact_ratio, self.ratio)) / 2)
        return [PartCount(num_patches - hidden, hidden)]

    def __call__(self, tokens: Tensor, generator: torch.Generator | None = None) -> MaskPlan:
        """``tokens`` (B, N, D), of which only shape and device matter; returns a plan with K = 1.

        Blocks are placed on the CPU, from numbers drawn there (:func:`mim_mm.masking.plan.draw_on_host`).
        """
        batch, patches = tokens.shape[:2]
        wanted = self._wanted(batch, patches, tokens, generator)
        blocks = wanted if self.block_ratio is None else torch.full((batch,), num_hidden(patches, self.block_ratio))
        hidden = self._place(batch, grid_shape(patches, self.grid), blocks, tokens, generator)
        noise = draw_uniform((batch, patches), tokens, generator)
        # Visible before hidden, either in random order: what is left over of the visible ones tops the hidden ones up.
        order = (to_device(hidden.flatten(1), tokens.device) + noise).argsort(dim=1)[:, None]
        if self.fill == 'none':
            return MaskPlan.from_lengths(order, (patches - hidden.flatten(1).sum(dim=1)).tolist())
        if self.roll:
            shift = (draw_uniform((1,), tokens, generator) * (self.roll + 1)).long().clamp(max=self.roll)
            places = (torch.arange(patches, device=tokens.device) - shift) % patches
            order = order.gather(2, places.expand_as(order))
        return MaskPlan.from_lengths(order, patches - wanted)

    def _wanted(self, batch: int, patches: int, tokens: Tensor, generator: torch.Generator | None) -> Tensor:
        """(B,) on the CPU, how many patches each image shall hide: whole numbers unless ``round_down``."""
        low, high = self.ratio
        if self.round_down:
            drawn = draw_on_host((batch,), tokens, generator).double()
            return patches * (low + (high - low) * drawn)
        fewest, most = num_hidden(patches, low), num_hidden(patches, high)
        if low == high:
            return torch.full((batch,), fewest)
        ratios = low + (high - low) * draw_on_host((batch,), tokens, generator).double()
        return (patches * ratios).ceil().long().clamp(fewest, most)

    def _place(
        self, batch: int, shape: tuple[int, int], wanted: Tensor, tokens: Tensor, generator: torch.Generator | None
    ) -> Tensor:
        """Bool (B, rows, columns) on the CPU, True where a block lies; all images of the batch side by side.

        Args:
            wanted: (B,) on the CPU, patches to hide of each.
        """
        rows, columns = shape
        smallest = max(1, (min(shape) // 3) ** 2) if self.min_block is None else self.min_block
        if smallest > (rows - 1) * (columns - 1):
            raise ValueError(
                f'min_block is {smallest}, but a block must be smaller than the grid of {rows} x {columns} on either '
                f'side: use min_block={max(1, (min(shape) // 3) ** 2)} or None'
            )
        hidden = torch.zeros(batch, rows, columns, dtype=torch.bool)
        left = wanted.clone()
        refused = torch.zeros(batch, dtype=torch.long)
        row, column = torch.arange(rows)[:, None], torch.arange(columns)
        while True:
            numbers = draw_on_host((ROUND, 4, batch), tokens, generator).double()
            for area, aspect, top, side in numbers.unbind(0):
                active = (left > 0) & (refused < PATIENCE[self.fill])
                if not active.any():
                    return hidden
                upper = left if self.max_block is None else left.clamp(max=self.max_block)
                height, width = self._sides(area, aspect, smallest, upper)
                top = (top * (rows - height + 1)).floor().view(-1, 1, 1)
                side = (side * (columns - width + 1)).floor().view(-1, 1, 1)
                block = (row >= top) & (row < top + height.view(-1, 1, 1))
                block = block & (column >= side) & (column < side + width.view(-1, 1, 1)) & ~hidden
                added = block.flatten(1).sum(dim=1)
                taken = active & (height < rows) & (width < columns) & (added > 0) & (added <= upper)
                hidden |= block & taken.view(-1, 1, 1)
                left = left - added * taken
                refused = torch.where(taken, 0, refused + 1)

    def _sides(self, area: Tensor, aspect: Tensor, smallest: int, upper: Tensor) -> tuple[Tensor, Tensor]:
        """Height and width (B,) of proposals from uniform numbers; where fewer than ``smallest`` patches are left, the
        area lies between the two all the same, as in the source."""
        area = smallest + (upper - smallest) * area
        span = math.log(self.min_aspect)
        aspect = (span - 2 * span * aspect).exp()
        return (area * aspect).sqrt().round(), (area / aspect).sqrt().round()
