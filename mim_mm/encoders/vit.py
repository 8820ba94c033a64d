"""mmpretrain's VisionTransformer under a mask plan (MAE section 3: the encoder sees visible patches only)."""

from __future__ import annotations

import torch
from mmcv.cnn.bricks.transformer import FFN
from mmpretrain.models import VisionTransformer
from mmpretrain.models.backbones.vision_transformer import TransformerEncoderLayer
from mmpretrain.models.utils import resize_pos_embed
from torch import Tensor, nn

from mim_mm.encoders.base import ADAPTERS, Adapter, Grid, gather_parts
from mim_mm.encoders.fused import fuse_attention
from mim_mm.encoders.packed import Packing, attend, drop_path, pack_tokens
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


def _check(backbone: VisionTransformer) -> None:
    projection = backbone.patch_embed.projection
    if projection.kernel_size != projection.stride or any(projection.padding):
        raise ValueError(
            f'VisionTransformer has kernel_size {projection.kernel_size} over stride {projection.stride} (patch_cfg): '
            'overlapping kernels would show pixels of hidden patches; leave patch_cfg at its default'
        )


def prepare(backbone: VisionTransformer, pos_embed: str) -> None:
    _check(backbone)
    grid = describe(backbone)
    plain_drop_path(backbone)
    fuse_attention(backbone)
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


def _prefix(backbone: VisionTransformer) -> Tensor | None:
    """The prefix tokens (1, P, D) with their positions."""
    if backbone.cls_token is None:
        return None
    return backbone.cls_token + backbone.pos_embed[:, : backbone.num_extra_tokens]


def encode(backbone: VisionTransformer, tokens: Tensor, visible: Tensor) -> Tensor:
    x = gather_parts(tokens, visible)
    prefix = _prefix(backbone)
    if prefix is not None:
        x = torch.cat([prefix.expand(len(x), -1, -1), x], dim=1)
    x = backbone.pre_norm(backbone.drop_after_pos(x))
    for layer in backbone.layers:
        x = layer(x)
    return backbone.ln1(x) if backbone.final_norm else x


def _packed_layer(layer: TransformerEncoderLayer, x: Tensor, packing: Packing) -> Tensor:
    """What ``layer`` does to each sequence, for all of them packed as (T, D)."""
    attn, ffn = layer.attn, layer.ffn
    qkv = attn.qkv(layer.ln1(x)).view(len(x), 3, attn.num_heads, attn.head_dims)
    y = attn.proj(attend(qkv, packing, dropout=attn.attn_drop if attn.training else 0.0))
    x = x + drop_path(attn.gamma1(attn.proj_drop(y)), attn.out_drop, packing)
    if isinstance(ffn, FFN):
        return x + drop_path(ffn.gamma2(ffn.layers(layer.ln2(x))), ffn.dropout_layer, packing)
    return ffn(layer.ln2(x), identity=x)  # SwiGLU as mmpretrain builds it: every step works token by token


def encode_packed(backbone: VisionTransformer, tokens: Tensor, packing: Packing) -> Tensor:
    other = next((layer for layer in backbone.layers if type(layer) is not TransformerEncoderLayer), None)
    if other is not None:
        raise NotImplementedError(
            f'{type(backbone).__name__} has layers of type {type(other).__name__}, which cannot run packed: use a '
            'masker with one number of visible patches for all images and parts, or a plain VisionTransformer'
        )
    x = pack_tokens(tokens, packing, _prefix(backbone))
    x = backbone.pre_norm(backbone.drop_after_pos(x))
    for layer in backbone.layers:
        x = _packed_layer(layer, x, packing)
    return backbone.ln1(x) if backbone.final_norm else x


ADAPTERS[VisionTransformer] = Adapter(describe, prepare, embed, encode, encode_packed)
