"""mmpretrain's HiViT under a mask plan: its first stages work inside each patch, so hidden patches can be dropped.

The stem and the merging stages touch one patch at a time (no attention), and the main stage attends between patches.
Dropping therefore happens after the position embedding, as iTPN's pixel branch does.
"""

from __future__ import annotations

from mmpretrain.models import HiViT
from mmpretrain.models.backbones.hivit import BlockWithRPE
from torch import Tensor, nn

from mim_mm.encoders.base import ADAPTERS, Adapter, Grid, gather_parts
from mim_mm.encoders.fused import fuse_attention
from mim_mm.encoders.packed import Packing, attend, drop_path, pack_tokens
from mim_mm.encoders.positions import init_linears, plain_drop_path, set_positions


def describe(backbone: HiViT) -> Grid:
    height, width = backbone.patch_embed.patches_resolution
    return Grid(
        height=height,
        width=width,
        patch_size=backbone.patch_size,
        in_channels=backbone.patch_embed.proj.in_channels,
        embed_dims=backbone.embed_dims,
        num_prefix=0,
    )


def _check(backbone: HiViT) -> None:
    if backbone.rpe:
        raise ValueError(
            'HiViT has rpe=True: its relative position bias is a full N x N table, which fits no subset of patches; '
            'set rpe=False (and ape=True) for pretraining'
        )
    projection = backbone.patch_embed.proj
    if projection.kernel_size != projection.stride or any(projection.padding):
        raise ValueError(
            f'HiViT has kernel_size {projection.kernel_size} over stride {projection.stride}: overlapping kernels '
            'would show pixels of hidden patches; leave kernel_size and pad_size at their defaults'
        )
    if not backbone.ape:
        raise ValueError('HiViT has ape=False: without positions visible patches cannot be told apart; set ape=True')


def prepare(backbone: HiViT, pos_embed: str) -> None:
    _check(backbone)
    grid = describe(backbone)
    plain_drop_path(backbone)
    fuse_attention(backbone)
    init_linears(backbone)
    nn.init.xavier_uniform_(backbone.patch_embed.proj.weight.data.flatten(1))
    set_positions(backbone, pos_embed, grid.height, grid.width, 0)


def embed(backbone: HiViT, images: Tensor) -> Tensor:
    x = backbone.patch_embed(images)
    for block in backbone.blocks[: -backbone.num_main_blocks]:
        x = block(x)
    x = x[..., 0, 0, :]
    return x + backbone.interpolate_pos_encoding(x, *images.shape[-2:])


def encode(backbone: HiViT, tokens: Tensor, visible: Tensor) -> Tensor:
    x = backbone.pos_drop(gather_parts(tokens, visible))
    for block in backbone.blocks[-backbone.num_main_blocks :]:
        x = block(x)
    return x


def _packed_block(block: BlockWithRPE, x: Tensor, packing: Packing) -> Tensor:
    """What a block of the main stage does to each sequence, for all of them packed as (T, D)."""
    attn = block.attn
    qkv = attn.qkv(block.norm1(x)).view(len(x), 3, attn.num_heads, -1)
    y = attend(qkv, packing, scale=attn.scale, dropout=attn.attn_drop.p if attn.training else 0.0)
    y = attn.proj_drop(attn.proj(y))
    x = x + drop_path(y if block.gamma_1 is None else block.gamma_1 * y, block.drop_path, packing)
    y = block.mlp(block.norm2(x))
    return x + drop_path(y if block.gamma_2 is None else block.gamma_2 * y, block.drop_path, packing)


def encode_packed(backbone: HiViT, tokens: Tensor, packing: Packing) -> Tensor:
    x = backbone.pos_drop(pack_tokens(tokens, packing))
    for block in backbone.blocks[-backbone.num_main_blocks :]:
        x = _packed_block(block, x, packing)
    return x


ADAPTERS[HiViT] = Adapter(describe, prepare, embed, encode, encode_packed)
