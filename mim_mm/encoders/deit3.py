"""mmpretrain's DeiT3 under a mask plan (DeiT III, Touvron et al., ECCV 2022): positions of patches alone."""

from __future__ import annotations

import torch
from mmpretrain.models import DeiT3
from torch import Tensor

from mim_mm.encoders.packed import Packing, pack_tokens
from mim_mm.encoders.vit import ViTEncoder


class DeiT3Encoder(ViTEncoder):
    """A ViT whose class token has no position and joins behind the dropout of the positions."""

    backbones = (DeiT3,)
    backbone: DeiT3

    @property
    def position_rows(self) -> int:
        return 0

    @property
    def prefix(self) -> Tensor | None:
        return self.backbone.cls_token

    def _enter_packed(self, tokens: Tensor, packing: Packing) -> Tensor:
        return pack_tokens(self.backbone.drop_after_pos(tokens), packing, self.prefix)

    def _enter(self, x: Tensor) -> Tensor:
        x, prefix = self.backbone.drop_after_pos(x), self.prefix
        return x if prefix is None else torch.cat([prefix.expand(len(x), -1, -1), x], dim=1)
