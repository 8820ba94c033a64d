"""What mmpretrain's plain and pyramid ViTs have in common: where their patches and their layers are kept."""

from __future__ import annotations

from mmpretrain.models.backbones.base_backbone import BaseBackbone
from torch import nn

from mim_mm.encoders.base import Encoder
from mim_mm.encoders.grid import Grid


class PatchEncoder(Encoder):
    """Backbones with one projection of square patches, ``patch_embed``, and the grid that it makes."""

    backbone: BaseBackbone

    @property
    def grid(self) -> Grid:
        backbone = self.backbone
        height, width = backbone.patch_resolution
        projection = backbone.patch_embed.projection
        return Grid(
            height=height,
            width=width,
            patch_size=projection.stride[0],
            in_channels=projection.in_channels,
            embed_dims=backbone.embed_dims,
            num_prefix=0 if getattr(backbone, 'cls_token', None) is None else backbone.num_extra_tokens,
        )

    @property
    def grid_shape(self) -> tuple[int, int]:
        return tuple(self.backbone.patch_resolution)


class LayerEncoder(PatchEncoder):
    """Of these, a stack of equally wide ``layers`` with a norm behind it or none."""

    sub_blocks = ('ln1', 'attn', 'gamma_1'), ('ln2', 'ffn', 'gamma_2')

    @property
    def blocks(self) -> list[nn.Module]:
        return list(self.backbone.layers)

    @property
    def heads(self) -> int:
        return self.backbone.layers[-1].attn.num_heads

    @property
    def norm(self) -> nn.Module | None:
        return self.backbone.ln1 if self.backbone.final_norm else None

    @property
    def closing(self) -> list[nn.Module]:
        return super().closing + ([self.backbone.ln2] if self.backbone.out_type == 'avg_featmap' else [])
