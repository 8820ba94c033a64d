"""mmpretrain's Swin: blocks of several widths in windows, so mask tokens go in where patches are hidden."""

from __future__ import annotations

from mmpretrain.models import SwinTransformer
from mmpretrain.models.selfsup import SimMIMSwinTransformer
from mmpretrain.models.utils import resize_pos_embed
from torch import Tensor

from mim_mm.encoders.patches import PatchEncoder


class SwinEncoder(PatchEncoder):
    """A pyramid of four stages, no class token, no blocks of one width that could be read one by one."""

    backbones = (SwinTransformer,)
    backbone: SwinTransformer

    @property
    def stages(self) -> list[int]:
        return [len(stage.blocks) for stage in self.backbone.stages]

    @property
    def output(self) -> tuple[int, int]:
        last = self.backbone.num_layers - 1
        return self.grid.patch_size * 2**last, self.backbone.num_features[last]

    def embed(self, images: Tensor) -> Tensor:
        backbone = self.backbone
        tokens, size = backbone.patch_embed(images)
        if not backbone.use_abs_pos_embed:
            return tokens
        positions = backbone.absolute_pos_embed
        return tokens + resize_pos_embed(positions, backbone.patch_resolution, size, backbone.interpolate_mode, 0)

    def encode_whole(self, images: Tensor) -> tuple[Tensor, Tensor]:
        maps = self.backbone(images)[-1]
        patches = maps.flatten(2).transpose(1, 2)
        return patches[:, :0], patches


class SimMIMSwinEncoder(SwinEncoder):
    """SimMIM's Swin; mmpretrain starts it as the release does."""

    backbones = (SimMIMSwinTransformer,)
    backbone: SimMIMSwinTransformer

    @property
    def output(self) -> tuple[int, int]:
        last = self.backbone.num_layers - 1
        if tuple(self.backbone.out_indices) != (last,):
            raise ValueError(
                f'SimMIMSwinTransformer has out_indices {self.backbone.out_indices}: under a mask only its last stage '
                f'has the width that its norm expects; set out_indices=({last},)'
            )
        return super().output

    def encode_masked(self, images: Tensor, mask: Tensor) -> Tensor:
        return self.backbone(images, mask)[-1].flatten(2).transpose(1, 2)

    def encode_whole(self, images: Tensor) -> tuple[Tensor, Tensor]:
        patches = self.encode_masked(images, None)
        return patches[:, :0], patches
