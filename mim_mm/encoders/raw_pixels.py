"""The encoder that does nothing: pixels as features, the line that every figure on frozen features stands beside.

On small images a k-NN on raw pixels is above many trained encoders (CIFAR-10: about 38 %), so that a figure without it
says little.
"""

from __future__ import annotations

from collections.abc import Sequence

from mmpretrain.models.backbones.base_backbone import BaseBackbone
from torch import Tensor, nn

from mim_mm.encoders.base import Encoder
from mim_mm.encoders.grid import Grid
from mim_mm.registry import MODELS


@MODELS.register_module()
class RawPixels(BaseBackbone):
    """Images (B, C, H, W), normalised, as rows (B, C*H*W); no parameter, so there is nothing to pretrain or to load.

    Args:
        img_size: side of the images; those of another size are refused where the width of a head depends on it.
        in_channels: C.
    """

    def __init__(self, img_size: int = 32, in_channels: int = 3, init_cfg: dict | None = None) -> None:
        super().__init__(init_cfg)
        self.img_size, self.in_channels = img_size, in_channels
        self.rows = nn.Flatten()

    @property
    def width(self) -> int:
        return self.in_channels * self.img_size**2

    def forward(self, images: Tensor) -> tuple[Tensor]:
        """One feature (B, C*H*W).

        Raises:
            ValueError: images of another size or number of channels.
        """
        wanted = (self.in_channels, self.img_size, self.img_size)
        if images.shape[1:] != wanted:
            raise ValueError(
                f'images of {tuple(images.shape[1:])} for RawPixels of {wanted}: set img_size and in_channels'
            )
        return (self.rows(images),)


class RawPixelsEncoder(Encoder):
    """What probes ask: one block, whose only token is the whole image."""

    backbones = (RawPixels,)

    @property
    def grid(self) -> Grid:
        pixels = self.backbone
        return Grid(1, 1, pixels.img_size, pixels.in_channels, pixels.width, 0)

    @property
    def blocks(self) -> list[nn.Module]:
        return [self.backbone.rows]

    def read(self, images: Tensor, blocks: Sequence[int], norm: bool = True) -> list[Tensor]:
        return [self.backbone(images)[0][:, None] for _ in blocks]
