"""Inverse block masking: squares of patches are what stays visible (Baevski et al., data2vec 2.0, ICML 2023)."""

from __future__ import annotations

import torch
from torch import Tensor

from mim_mm.masking.adaptive import one_ratio
from mim_mm.masking.base import Masker, PartCount, ratio_text
from mim_mm.masking.grid import grid_shape
from mim_mm.masking.plan import MaskPlan, draw_uniform, exact_ratio, num_hidden
from mim_mm.registry import MODELS


@MODELS.register_module()
class InverseBlockMasking(Masker):
    """Show small squares and hide the rest, ``ceil(N * ratio)`` patches; K masks an image, drawn independently.

    Of each mask ``floor(N * (1 - ratio + adjust) / block**2)`` centres are drawn uniformly from all patches, with
    replacement. A square of ``block`` x ``block`` patches around each is visible; at a border the rows and columns
    that fall off are pushed back onto the outermost. Where that makes too many visible patches, some drawn at random
    are hidden; where too few, some of the others are shown. All as released: of 14 x 14 patches 39 are visible, from 5
    squares (ViT-B), or 49 from 7 (ViT-L: ``ratio=0.75, adjust=0.1``).

    Args:
        ratio: share of hidden patches.
        num_parts: K, the copies of an image under one teacher; 16 in the release.
        block: side of a square in patches.
        adjust: share of patches that squares get beyond the visible ones, since they overlap.
        grid: rows and columns; None takes the square.

    Raises:
        ValueError: for options out of range, and when called on so few patches that there is no square.
    """

    fixed_count = True
    # How many patches two masks both hide is chance.
    fixed_overlap = False

    def __init__(
        self,
        ratio: float = 0.8,
        num_parts: int = 16,
        block: int = 3,
        adjust: float = 0.07,
        grid: tuple[int, int] | None = None,
    ) -> None:
        self.ratio = one_ratio(ratio)
        if num_parts < 1 or block < 1 or not 0 <= adjust < self.ratio:
            raise ValueError(
                f'num_parts={num_parts}, block={block}, adjust={adjust}: at least 1, at least 1, and 0 <= adjust < '
                f'ratio={self.ratio}; released are 16, 3 and 0.07'
            )
        self.num_parts, self.block, self.adjust, self.grid = num_parts, block, adjust, grid

    @property
    def published(self) -> str:
        return f'inverse block {ratio_text(self.ratio)}'

    def counts(self, num_patches: int) -> list[PartCount]:
        hidden = num_hidden(num_patches, self.ratio)
        return [PartCount(num_patches - hidden, hidden)] * self.num_parts

    def num_squares(self, num_patches: int) -> int:
        """Squares of one mask of N patches.

        Raises:
            ValueError: none.
        """
        shown = 1 - exact_ratio(self.ratio) + exact_ratio(self.adjust)
        squares = int(num_patches * shown / self.block**2)
        if not squares:
            raise ValueError(
                f'{num_patches} patches at ratio={self.ratio}, adjust={self.adjust} show {float(shown):.4g} of them, '
                f'less than one square of block={self.block}: use a smaller block, a larger adjust or RandomMasking'
            )
        return squares

    def __call__(self, tokens: Tensor, generator: torch.Generator | None = None) -> MaskPlan:
        """``tokens`` (B, N, D), of which only shape and device matter; returns a plan with K parts of equal length."""
        batch, patches = tokens.shape[:2]
        rows, columns = grid_shape(patches, self.grid)
        drawn = draw_uniform((batch, self.num_parts, self.num_squares(patches), 1), tokens, generator)
        centres = (drawn * patches).long().clamp(max=patches - 1)  # fp32 may round up
        steps = torch.arange(self.block, device=tokens.device) - self.block // 2
        row = (centres // columns + steps).clamp(0, rows - 1)
        column = (centres % columns + steps).clamp(0, columns - 1)
        places = (row[..., :, None] * columns + column[..., None, :]).flatten(2)
        noise = draw_uniform((batch, self.num_parts, patches), tokens, generator)
        # Squares before the rest, either in random order: the first V are what stays visible.
        scores = noise + 1
        scores = scores.scatter(2, places, noise.gather(2, places))
        return MaskPlan.from_scores(scores, patches - num_hidden(patches, self.ratio))
