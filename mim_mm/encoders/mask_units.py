"""What a masker decides about where a backbone takes mask tokens: squares of the image, at least as large as a patch.

The plan lives on the grid of units and :class:`MaskUnits` translates between that grid and the finer one of the tokens:

    tokens (B, h*w, D)  -- pool -->  unit tokens (B, N, D)  -- masker -->  plan.mask (B, K, N)  -- expand -->  (B, h, w)

SimMIM hides squares of 32 px: 6 x 6 units on Swin with 192-px images (8 x 8 patches of 4 px each), 7 x 7 on a ViT with
224-px images (2 x 2 patches of 16 px). BEiT and CAE hide single patches: unit and patch coincide.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class MaskUnits:
    """Squares of ``factor`` x ``factor`` tokens that are hidden as a whole; N = rows * columns of them."""

    rows: int
    columns: int
    factor: int

    @classmethod
    def cover(cls, height: int, width: int, patch_size: int, unit: int) -> MaskUnits:
        """The units of ``unit`` px that tile an image of height x width px in patches of ``patch_size`` px.

        Raises:
            ValueError: if a unit is no whole number of patches or the image no whole number of units.
        """
        if unit < patch_size or unit % patch_size:
            raise ValueError(
                f'mask_unit is {unit} px: it must be a whole number of {patch_size}-px patches, e.g. {2 * patch_size}'
            )
        if height % unit or width % unit:
            raise ValueError(
                f'images of {height} x {width} px are not a whole number of {unit}-px mask units: crop them to '
                f'multiples of {unit}, or choose another mask_unit'
            )
        return cls(height // unit, width // unit, unit // patch_size)

    def pool(self, tokens: Tensor) -> Tensor:
        """Tokens (B, h*w, D) to the mean of each unit (B, N, D), row-major; tokens themselves where the factor is 1."""
        if self.factor == 1:
            return tokens
        batch, _, dims = tokens.shape
        squares = tokens.view(batch, self.rows, self.factor, self.columns, self.factor, dims)
        return squares.mean(dim=(2, 4)).flatten(1, 2)

    def expand(self, mask: Tensor) -> Tensor:
        """A mask over units (B, N) to one over tokens (B, h, w), of any dtype."""
        squares = mask.view(-1, self.rows, self.columns)
        return squares.repeat_interleave(self.factor, dim=1).repeat_interleave(self.factor, dim=2)
