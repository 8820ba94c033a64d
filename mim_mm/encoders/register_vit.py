"""A ViT with more tokens in front of its patches: registers (Darcet et al., ICLR 2024, arXiv 2309.16588), or several
class tokens, as Pixio has (Yang et al. 2025, arXiv 2512.15715).

Class tokens have rows in the table of positions, registers have none, as in DINOv2's release, whose names and order are
kept: class tokens, registers, patches.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from mmpretrain.models import VisionTransformer
from mmpretrain.models.utils import resize_pos_embed
from torch import Tensor, nn

from mim_mm.compat.initializers import trunc_normal_
from mim_mm.encoders.vit import ViTEncoder
from mim_mm.registry import MODELS


@MODELS.register_module()
class RegisterViT(VisionTransformer):
    """mmpretrain's ViT with ``num_cls_tokens`` class tokens and ``num_registers`` registers.

    ``out_type='cls_token'`` gives the first class token; maps and means leave all of these tokens out.

    Args:
        num_cls_tokens: C, at least 1.
        num_registers: R, 0 for none; DINOv2 has 4.
        **kwargs: as ``VisionTransformer``; ``with_cls_token=False`` is refused.

    Raises:
        ValueError: no class token, or fewer than no registers.
    """

    def __init__(self, *args, num_cls_tokens: int = 1, num_registers: int = 0, **kwargs) -> None:
        if num_cls_tokens < 1 or num_registers < 0 or not kwargs.get('with_cls_token', True):
            raise ValueError(
                f'num_cls_tokens={num_cls_tokens}, num_registers={num_registers}: RegisterViT has one class token or '
                "more, and 0 registers or more; without a class token use mmpretrain's VisionTransformer"
            )
        super().__init__(*args, **kwargs)
        patches = math.prod(self.patch_resolution)
        self.num_cls_tokens = num_cls_tokens
        self.num_extra_tokens = num_cls_tokens + num_registers
        self.cls_token = nn.Parameter(torch.zeros(1, num_cls_tokens, self.embed_dims))
        self.pos_embed = nn.Parameter(torch.zeros(1, num_cls_tokens + patches, self.embed_dims))
        self.register_tokens = nn.Parameter(torch.zeros(1, num_registers, self.embed_dims)) if num_registers else None
        if self.frozen_stages > 0:
            self._freeze_stages()

    def init_weights(self) -> None:
        """As mmpretrain's; several tokens start different from one another: N(0, 0.02), as Pixio's and DINOv2's do."""
        super().init_weights()
        if isinstance(self.init_cfg, Mapping) and self.init_cfg.get('type') == 'Pretrained':
            return
        if self.num_cls_tokens > 1:
            trunc_normal_(self.cls_token, std=0.02)
        if self.register_tokens is not None:
            trunc_normal_(self.register_tokens, std=0.02)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        encoder = RegisterViTEncoder(self)
        tokens, size = self.patch_embed(x)
        x = encoder._enter(tokens + encoder.patch_positions(size))
        found = []
        for number, layer in enumerate(self.layers):
            x = layer(x)
            if number == len(self.layers) - 1 and self.final_norm:
                x = self.ln1(x)
            if number in self.out_indices:
                found.append(self._format_output(x, size))
        return tuple(found)

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """As mmpretrain's; registers belong to the stem, as the class token does."""
        if param_name == f'{prefix}register_tokens':
            param_name = f'{prefix}cls_token'
        return super().get_layer_depth(param_name, prefix)

    def _freeze_stages(self) -> None:
        super()._freeze_stages()
        if getattr(self, 'register_tokens', None) is not None:
            self.register_tokens.requires_grad = False

    def _prepare_pos_embed(self, state_dict: dict, prefix: str, *args, **kwargs) -> None:
        """A table of another square grid is resized, as mmpretrain does when it loads; registers have no rows there."""
        name, own = f'{prefix}pos_embed', self.pos_embed
        table = state_dict.get(name)
        if table is None or table.shape == own.shape or table.shape[-1] != own.shape[-1]:
            return
        side = math.isqrt(max(table.shape[1] - self.num_cls_tokens, 0))
        if side and side**2 == table.shape[1] - self.num_cls_tokens:
            sizes = (side, side), self.patch_resolution
            state_dict[name] = resize_pos_embed(table, *sizes, self.interpolate_mode, self.num_cls_tokens)


class RegisterViTEncoder(ViTEncoder):
    """A plain ViT behind more prefix tokens, which maskers never see; attention is that of the first class token."""

    backbones = (RegisterViT,)
    backbone: RegisterViT

    @property
    def position_rows(self) -> int:
        return self.backbone.num_cls_tokens

    @property
    def prefix(self) -> Tensor:
        registers = self.backbone.register_tokens
        found = super().prefix
        return found if registers is None else torch.cat([found, registers], dim=1)

    def prepare(self, pos_embed: str) -> None:
        super().prepare(pos_embed)
        if self.backbone.register_tokens is not None:
            nn.init.normal_(self.backbone.register_tokens, std=0.02)
