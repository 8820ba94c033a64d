"""Swin V2 with mask tokens at its input (Liu et al., CVPR 2022), as SimMIM pretrains it; mmpretrain has V1 alone."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from mmpretrain.models import SwinTransformerV2
from torch import Tensor, nn

from mim_mm.compat.initializers import trunc_normal_
from mim_mm.encoders.swin import SimMIMSwinEncoder, SwinEncoder
from mim_mm.registry import MODELS


@MODELS.register_module()
class SimMIMSwinV2(SwinTransformerV2):
    """mmpretrain's Swin V2; ``forward(x, mask)`` puts the mask token in place of hidden patches.

    Its weights but the mask token are those of ``mmpretrain.SwinTransformerV2``, which takes them downstream, also with
    other windows: positions are a function of distance (``cpb_mlp``), not a table.
    """

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, self.embed_dims))

    def init_weights(self) -> None:
        """As the release: linear layers and mask token truncated normal (0.02), biases zero, norms one and zero, but
        those behind attention and MLP, whose weights start at zero: every block starts as the identity."""
        super().init_weights()
        if isinstance(self.init_cfg, Mapping) and self.init_cfg.get('type') == 'Pretrained':
            return
        trunc_normal_(self.mask_token, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, nn.LayerNorm):
                nn.init.ones_(module.weight)
                nn.init.zeros_(module.bias)
        for block in (block for stage in self.stages for block in stage.blocks):
            nn.init.zeros_(block.norm1.weight)
            nn.init.zeros_(block.norm2.weight)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> tuple[Tensor, ...]:
        """Images (B, C, H, W) to maps; ``mask`` bool (B, h, w) over patches, True where hidden; None hides nothing."""
        if mask is None:
            return super().forward(x)

        def hide(module: nn.Module, inputs: tuple, output: tuple) -> tuple:
            tokens, size = output
            return torch.where(mask.flatten(1)[..., None].bool(), self.mask_token.to(tokens.dtype), tokens), size

        handle = self.patch_embed.register_forward_hook(hide)
        try:
            return super().forward(x)
        finally:
            handle.remove()


class SwinV2Encoder(SwinEncoder):
    """Swin V2 as it stands, to be read."""

    backbones = (SwinTransformerV2,)

    @property
    def output(self) -> tuple[int, int]:
        last = self.backbone.num_layers - 1
        return self.grid.patch_size * 2**last, self.backbone.embed_dims * 2**last


class SimMIMSwinV2Encoder(SwinV2Encoder, SimMIMSwinEncoder):
    """SimMIM's; its start is the release's."""

    backbones = (SimMIMSwinV2,)
    backbone: SimMIMSwinV2

    @property
    def output(self) -> tuple[int, int]:
        last = self.backbone.num_layers - 1
        if tuple(self.backbone.out_indices) != (last,):
            raise ValueError(
                f'SimMIMSwinV2 has out_indices {tuple(self.backbone.out_indices)}: pretraining uses its last map; '
                f'set out_indices=({last},)'
            )
        return super().output
