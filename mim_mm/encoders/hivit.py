"""mmpretrain's HiViT under a mask plan: its first stages work inside each patch, so hidden patches can be dropped.

The stem and the merging stages touch one patch at a time (no attention), and the main stage attends between patches.
Dropping therefore happens after the position embedding, as iTPN's pixel branch does.
"""

from __future__ import annotations

import torch
from mmpretrain.models import HiViT
from mmpretrain.models.backbones.hivit import BlockWithRPE
from torch import Tensor, nn

from mim_mm.encoders.base import Encoder
from mim_mm.encoders.class_attention import project_row, row_of, without_dropout
from mim_mm.encoders.fused import fuse_attention
from mim_mm.encoders.grid import Grid, gather_parts
from mim_mm.encoders.packed import Packing, attend, drop_path, pack_tokens
from mim_mm.encoders.positions import init_linears, plain_drop_path, set_positions


class HiViTEncoder(Encoder):
    """HiViT without relative positions: no class token, no final norm; blocks are those of the main stage."""

    backbones = (HiViT,)
    backbone: HiViT
    sub_blocks = ('norm1', 'attn', 'gamma_1'), ('norm2', 'mlp', 'gamma_2')

    @property
    def grid(self) -> Grid:
        height, width = self.backbone.patch_embed.patches_resolution
        return Grid(
            height=height,
            width=width,
            patch_size=self.backbone.patch_size,
            in_channels=self.backbone.patch_embed.proj.in_channels,
            embed_dims=self.backbone.embed_dims,
            num_prefix=0,
        )

    @property
    def blocks(self) -> list[nn.Module]:
        return list(self.backbone.blocks[-self.backbone.num_main_blocks :])

    @property
    def stages(self) -> list[int]:
        return list(self.backbone.arch_settings['depths'])

    @property
    def heads(self) -> int:
        return self.backbone.blocks[-1].attn.num_heads

    def prepare(self, pos_embed: str) -> None:
        backbone, grid = self.backbone, self.grid
        if backbone.rpe:
            raise ValueError(
                'HiViT has rpe=True: its relative position bias is a full N x N table, which fits no subset of '
                'patches; set rpe=False (and ape=True) for pretraining'
            )
        if grid.height != grid.width:
            raise ValueError(
                f"HiViT has {grid.height} x {grid.width} patches: mmpretrain's takes positions for those of a square; "
                'set a square img_size, or use VisionTransformer'
            )
        projection = backbone.patch_embed.proj
        if projection.kernel_size != projection.stride or any(projection.padding):
            raise ValueError(
                f'HiViT has kernel_size {projection.kernel_size} over stride {projection.stride}: overlapping kernels '
                'would show pixels of hidden patches; leave kernel_size and pad_size at their defaults'
            )
        if not backbone.ape:
            raise ValueError(
                'HiViT has ape=False: without positions visible patches cannot be told apart; set ape=True'
            )
        plain_drop_path(backbone)
        fuse_attention(backbone)
        init_linears(backbone)
        nn.init.xavier_uniform_(projection.weight.data.flatten(1))
        set_positions(backbone, pos_embed, grid.height, grid.width, 0)

    def embed(self, images: Tensor) -> Tensor:
        backbone = self.backbone
        x = backbone.patch_embed(images)
        for block in backbone.blocks[: -backbone.num_main_blocks]:
            x = block(x)
        x = x[..., 0, 0, :]
        return x + backbone.interpolate_pos_encoding(x, *images.shape[-2:])

    def encode(self, tokens: Tensor, visible: Tensor) -> Tensor:
        return self._run(gather_parts(tokens, visible))

    def encode_whole(self, images: Tensor) -> tuple[Tensor, Tensor]:
        x = self._run(self.embed(images))
        return x[:, :0], x

    def _run(self, x: Tensor) -> Tensor:
        """The main stage, (B, L, D) to the same."""
        x = self.backbone.pos_drop(x)
        for block in self.backbone.blocks[-self.backbone.num_main_blocks :]:
            x = block(x)
        return x

    def encode_packed(self, tokens: Tensor, packing: Packing) -> Tensor:
        x = self.backbone.pos_drop(pack_tokens(tokens, packing))
        for block in self.backbone.blocks[-self.backbone.num_main_blocks :]:
            x = _packed_block(block, x, packing)
        return x

    @torch.no_grad()
    def cls_attention(self, tokens: Tensor, minmax_heads: bool = False) -> Tensor:
        *before, last = self.blocks
        with without_dropout(self.backbone):
            x = self.backbone.pos_drop(tokens)
            for block in before:
                x = block(x)
            x = last.norm1(x)
        query, keys = project_row(x, last.attn.qkv, 0)
        return row_of(query, keys, last.attn.num_heads, 0, minmax_heads)


def _packed_block(block: BlockWithRPE, x: Tensor, packing: Packing) -> Tensor:
    """What a block of the main stage does to each sequence, for all of them packed as (T, D)."""
    attn = block.attn
    qkv = attn.qkv(block.norm1(x)).view(len(x), 3, attn.num_heads, -1)
    y = attend(qkv, packing, scale=attn.scale, dropout=attn.attn_drop.p if attn.training else 0.0)
    y = attn.proj_drop(attn.proj(y))
    x = x + drop_path(y if block.gamma_1 is None else block.gamma_1 * y, block.drop_path, packing)
    y = block.mlp(block.norm2(x))
    return x + drop_path(y if block.gamma_2 is None else block.gamma_2 * y, block.drop_path, packing)
