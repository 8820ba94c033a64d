"""mmpretrain's VisionTransformer under a mask plan (MAE section 3: the encoder sees visible patches only)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from mmcv.cnn.bricks.transformer import FFN
from mmpretrain.models import VisionTransformer
from mmpretrain.models.backbones.deit3 import DeiT3FFN, DeiT3TransformerEncoderLayer
from mmpretrain.models.backbones.vision_transformer import TransformerEncoderLayer
from mmpretrain.models.utils import resize_pos_embed
from torch import Tensor, nn

from mim_mm.encoders.class_attention import project_row, row_of, without_dropout
from mim_mm.encoders.families import refusal
from mim_mm.encoders.fused import fuse_attention
from mim_mm.encoders.grid import Grid, gather_parts
from mim_mm.encoders.packed import Packing, attend, drop_path, pack_tokens
from mim_mm.encoders.patches import LayerEncoder
from mim_mm.encoders.positions import init_linears, plain_drop_path, positions_by_scale, set_positions

PACKED = (TransformerEncoderLayer, DeiT3TransformerEncoderLayer)  # layers that :func:`_packed_layer` restates


class ViTEncoder(LayerEncoder):
    """MAE's, MoCo v3's and DeiT's ViT: absolute positions at the input, a class token or none."""

    backbones = (VisionTransformer,)
    backbone: VisionTransformer
    # How positions of another grid are made: mmpretrain's way, or with :func:`positions_by_scale`, DINO's.
    resample_by_scale = False

    @property
    def grid(self) -> Grid:
        # What a patch covers, also where patches overlap, which reading a backbone allows and encoding refuses.
        return replace(super().grid, patch_size=self.backbone.patch_embed.projection.kernel_size[0])

    @property
    def position_rows(self) -> int:
        return self.backbone.num_extra_tokens  # without a Grid, which torch.compile cannot make within a step

    @property
    def prefix(self) -> Tensor | None:
        """The prefix tokens (1, P, D) with their positions."""
        if self.backbone.cls_token is None:
            return None
        return self.backbone.cls_token + self.backbone.pos_embed[:, : self.position_rows]

    def prepare(self, pos_embed: str) -> None:
        backbone, grid = self.backbone, self.grid
        projection = backbone.patch_embed.projection
        if projection.kernel_size != projection.stride or any(projection.padding):
            raise ValueError(
                f'VisionTransformer has kernel_size {projection.kernel_size} over stride {projection.stride} '
                '(patch_cfg): overlapping kernels would show pixels of hidden patches; leave patch_cfg at its default'
            )
        plain_drop_path(backbone)
        fuse_attention(backbone)
        init_linears(backbone)
        nn.init.xavier_uniform_(projection.weight.data.flatten(1))
        if backbone.cls_token is not None:
            nn.init.normal_(backbone.cls_token, std=0.02)
        set_positions(backbone, pos_embed, grid.height, grid.width, self.position_rows)

    def embed(self, images: Tensor) -> Tensor:
        tokens, grid = self.backbone.patch_embed(images)
        return tokens + self.patch_positions(grid)

    def positions(self, size: tuple[int, int]) -> Tensor:
        return self.patch_positions(tuple(side // self.grid.patch_size for side in size))

    def patch_positions(self, grid: tuple[int, int]) -> Tensor:
        """The table (1, N, D) of the patches of a grid (rows, columns), resampled from the backbone's own."""
        backbone = self.backbone
        table = backbone.pos_embed[:, self.position_rows :]
        if self.resample_by_scale:
            return positions_by_scale(table, backbone.patch_resolution, grid)
        return resize_pos_embed(
            table, backbone.patch_resolution, grid, mode=backbone.interpolate_mode, num_extra_tokens=0
        )

    def encode_tokens(self, tokens: Tensor, attention: bool = False) -> tuple[Tensor, Tensor | None]:
        if not attention:
            return self._finish(self._enter(tokens)), None
        *before, last = self.backbone.layers
        x = self._enter(tokens)
        for layer in before:
            x = layer(x)
        with torch.no_grad():
            row = self._row(x)
        x = last(x)
        return (self.backbone.ln1(x) if self.backbone.final_norm else x), row

    def encode(self, tokens: Tensor, visible: Tensor) -> Tensor:
        return self._finish(self._enter(gather_parts(tokens, visible)))

    def encode_levels(self, tokens: Tensor, visible: Tensor, blocks: Sequence[int]) -> tuple[Tensor, list[Tensor]]:
        x, found = self._enter(gather_parts(tokens, visible)), {}
        for number, layer in enumerate(self.backbone.layers):
            x = found[number] = layer(x)
        return x if self.norm is None else self.norm(x), [found[number] for number in blocks]

    def encode_whole(self, images: Tensor) -> tuple[Tensor, Tensor]:
        x = self._finish(self._enter(self.embed(images)))
        return x[:, : self.num_prefix], x[:, self.num_prefix :]

    def mlp_outputs(self, images: Tensor, blocks: Sequence[int]) -> list[Tensor]:
        found, layers = {}, self.backbone.layers
        other = next((layers[i].ffn for i in blocks if not isinstance(layers[i].ffn, FFN | DeiT3FFN)), None)
        if other is not None:
            raise refusal(type(self.backbone), 'mlp_outputs', f'a {type(other).__name__} adds its input itself')
        # Hooks, so that blocks run through their forward, whatever is wrapped around it.
        handles = [
            layers[i].ffn.layers.register_forward_hook(lambda module, args, out, i=i: found.__setitem__(i, out))
            for i in blocks
        ]
        try:
            self._finish(self._enter(self.embed(images)))
        finally:
            for handle in handles:
                handle.remove()
        return [found[i] for i in blocks]

    def _enter(self, x: Tensor) -> Tensor:
        """Patches (B, L, D) behind the prefix tokens (B, P+L, D), as the first block takes them."""
        prefix = self.prefix
        if prefix is not None:
            x = torch.cat([prefix.expand(len(x), -1, -1), x], dim=1)
        return self.backbone.pre_norm(self.backbone.drop_after_pos(x))

    def _finish(self, x: Tensor) -> Tensor:
        """All blocks and the final norm."""
        for layer in self.backbone.layers:
            x = layer(x)
        return self.backbone.ln1(x) if self.backbone.final_norm else x

    def encode_packed(self, tokens: Tensor, packing: Packing) -> Tensor:
        backbone = self.backbone
        other = next((layer for layer in backbone.layers if type(layer) not in PACKED), None)
        if other is not None:
            raise refusal(
                type(backbone), 'encode_packed', f'its layers of type {type(other).__name__} cannot run packed'
            )
        x = self._enter_packed(tokens, packing)
        for layer in backbone.layers:
            x = _packed_layer(layer, x, packing)
        return backbone.ln1(x) if backbone.final_norm else x

    def _enter_packed(self, tokens: Tensor, packing: Packing) -> Tensor:
        """What :meth:`_enter` does, for sequences laid end to end (T, D)."""
        x = pack_tokens(tokens, packing, self.prefix)
        return self.backbone.pre_norm(self.backbone.drop_after_pos(x))

    @torch.no_grad()
    def cls_attention(self, tokens: Tensor, minmax_heads: bool = False) -> Tensor:
        with without_dropout(self.backbone):
            x = self._enter(tokens)
            for layer in self.backbone.layers[:-1]:
                x = layer(x)
            return self._row(x, minmax_heads)

    def _row(self, x: Tensor, minmax_heads: bool = False) -> Tensor:
        """The class token's attention in the last block, from what enters that block."""
        last = self.backbone.layers[-1]
        query, keys = project_row(last.ln1(x), last.attn.qkv, self.num_prefix)
        return row_of(query, keys, last.attn.num_heads, self.num_prefix, minmax_heads)


def _packed_layer(layer: TransformerEncoderLayer, x: Tensor, packing: Packing) -> Tensor:
    """What ``layer`` does to each sequence, for all of them packed as (T, D)."""
    attn, ffn = layer.attn, layer.ffn
    qkv = attn.qkv(layer.ln1(x)).view(len(x), 3, attn.num_heads, attn.head_dims)
    y = attn.proj(attend(qkv, packing, dropout=attn.attn_drop if attn.training else 0.0))
    x = x + drop_path(attn.gamma1(attn.proj_drop(y)), attn.out_drop, packing)
    if isinstance(ffn, FFN | DeiT3FFN):
        return x + drop_path(ffn.gamma2(ffn.layers(layer.ln2(x))), ffn.dropout_layer, packing)
    return ffn(layer.ln2(x), identity=x)  # SwiGLU as mmpretrain builds it: every step works token by token
