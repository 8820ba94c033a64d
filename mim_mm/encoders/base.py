"""What an algorithm may ask of a backbone, whichever class it is: four functions, one implementation per class.

The backbone stays the plain mmpretrain module, so its weights load elsewhere without this package. A further backbone
is supported by registering its class with these functions, in a file beside ``vit.py``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import singledispatch

from torch import Tensor, nn


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


def _unsupported(backbone: nn.Module) -> NotImplementedError:
    return NotImplementedError(
        f'{type(backbone).__name__} cannot encode visible patches only: supported are the mmpretrain backbones '
        'VisionTransformer and HiViT (and their subclasses); register another with mim_mm.encoders'
    )


@singledispatch
def describe(backbone: nn.Module) -> Grid:
    """The geometry of a backbone."""
    raise _unsupported(backbone)


@singledispatch
def prepare(backbone: nn.Module, pos_embed: str) -> None:
    """Initialise a backbone as MAE does: xavier linears and patch projection, cls N(0, 0.02), positions.

    Args:
        pos_embed: 'sincos' (fixed, as MAE) or 'learned' (truncated normal, std 0.02).
    """
    raise _unsupported(backbone)


@singledispatch
def embed(backbone: nn.Module, images: Tensor) -> Tensor:
    """Images (B, C, H, W) to patch tokens (B, N, D) with position embedding, before any block and any class token."""
    raise _unsupported(backbone)


@singledispatch
def encode(backbone: nn.Module, tokens: Tensor, visible: Tensor) -> Tensor:
    """Encode the visible tokens of all parts as one batch.

    Args:
        tokens: (B, N, D) from :func:`embed`.
        visible: long (B, K, V).

    Returns:
        (B*K, P+V, D), prefix tokens first, the patches in the order of ``visible``.
    """
    raise _unsupported(backbone)


def gather_parts(tokens: Tensor, ids: Tensor) -> Tensor:
    """Tokens (B, N, D) at ids (B, K, V) as (B*K, V, D)."""
    batch, parts, length = ids.shape
    index = ids.reshape(batch, parts * length, 1).expand(-1, -1, tokens.shape[-1])
    return tokens.gather(1, index).view(batch * parts, length, tokens.shape[-1])
