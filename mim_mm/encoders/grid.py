"""How the patches of an image lie, and the tokens that are made of them."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Grid:
    """Geometry of a backbone.

    Attributes:
        height, width: patches along each side; N = height * width.
        patch_size: side of a patch in pixels.
        in_channels: channels of the image.
        embed_dims: D, width of a token.
        num_prefix: P, tokens in front of the patches (class token), which no mask plan counts.
    """

    height: int
    width: int
    patch_size: int
    in_channels: int
    embed_dims: int
    num_prefix: int

    @property
    def num_patches(self) -> int:
        return self.height * self.width

    def of_image(self, images: Tensor) -> tuple[int, int]:
        """Patches along height and width of a batch (B, C, H, W).

        Raises:
            ValueError: if the image is not a whole number of patches.
        """
        height, width = images.shape[-2:]
        if height % self.patch_size or width % self.patch_size:
            raise ValueError(
                f'images of {height} x {width} px are not a whole number of {self.patch_size}-px patches: '
                f'resize or crop them to multiples of {self.patch_size}'
            )
        return height // self.patch_size, width // self.patch_size


def gather_parts(tokens: Tensor, ids: Tensor) -> Tensor:
    """Tokens (B, N, D) at ids (B, K, V) as (B*K, V, D)."""
    batch, parts, length = ids.shape
    index = ids.reshape(batch, parts * length, 1).expand(-1, -1, tokens.shape[-1])
    return tokens.gather(1, index).view(batch * parts, length, tokens.shape[-1])
