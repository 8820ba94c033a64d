"""mmpretrain's VisionTransformer under a mask plan (MAE section 3: the encoder sees visible patches only)."""

from __future__ import annotations

import torch
from mmpretrain.models import VisionTransformer
from mmpretrain.models.utils import resize_pos_embed
from torch import Tensor, nn

from mim_mm.encoders.base import ADAPTERS, Adapter, Grid, gather_parts
from mim_mm.encoders.positions import init_linears, plain_drop_path, set_positions


def describe(backbone: VisionTransformer) -> Grid:
    height, width = backbone.patch_resolution
    projection = backbone.patch_embed.projection
    return Grid(
        height=height,
        width=width,
        patch_size=projection.kernel_size[0],
        in_channels=projection.in_channels,
        embed_dims=backbone.embed_dims,
        num_prefix=backbone.num_extra_tokens,
    )


def prepare(backbone: VisionTransformer, pos_embed: str) -> None:
    grid = describe(backbone)
    plain_drop_path(backbone)
    init_linears(backbone)
    projection = backbone.patch_embed.projection
    nn.init.xavier_uniform_(projection.weight.data.flatten(1))
    if backbone.cls_token is not None:
        nn.init.normal_(backbone.cls_token, std=0.02)
    set_positions(backbone, pos_embed, grid.height, grid.width, grid.num_prefix)


def embed(backbone: VisionTransformer, images: Tensor) -> Tensor:
    tokens, size = backbone.patch_embed(images)
    positions = backbone.pos_embed[:, backbone.num_extra_tokens :]
    return tokens + resize_pos_embed(
        positions, backbone.patch_resolution, size, mode=backbone.interpolate_mode, num_extra_tokens=0
    )


def encode(backbone: VisionTransformer, tokens: Tensor, visible: Tensor) -> Tensor:
    x = gather_parts(tokens, visible)
    if backbone.cls_token is not None:
        cls = backbone.cls_token + backbone.pos_embed[:, : backbone.num_extra_tokens]
        x = torch.cat([cls.expand(len(x), -1, -1), x], dim=1)
    x = backbone.pre_norm(backbone.drop_after_pos(x))
    for layer in backbone.layers:
        x = layer(x)
    return backbone.ln1(x) if backbone.final_norm else x


ADAPTERS[VisionTransformer] = Adapter(describe, prepare, embed, encode)
