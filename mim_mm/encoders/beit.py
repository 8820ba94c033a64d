"""mmpretrain's BEiT family: biases by position inside attention; mask tokens at the input (BEiT, SimMIM) or none (CAE).

The sequence keeps its length under mask tokens, so each image may hide its own number of patches.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmpretrain.models import BEiTViT
from mmpretrain.models.selfsup import BEiTPretrainViT, CAEPretrainViT
from mmpretrain.models.utils import resize_pos_embed
from torch import Tensor

from mim_mm.encoders.base import Encoder
from mim_mm.encoders.class_attention import row_of, without_dropout
from mim_mm.encoders.families import refusal
from mim_mm.encoders.grid import gather_parts
from mim_mm.encoders.initial import init_beit, init_cae
from mim_mm.encoders.patches import LayerEncoder


class BEiTEncoder(LayerEncoder):
    """The ViT of fine-tuning and probes. Tables of relative positions fit one size of image."""

    backbones = (BEiTViT,)
    backbone: BEiTViT

    def embed(self, images: Tensor) -> Tensor:
        backbone = self.backbone
        tokens, size = backbone.patch_embed(images)
        if backbone.pos_embed is None:
            return tokens
        positions = backbone.pos_embed[:, backbone.num_extra_tokens :]
        return tokens + resize_pos_embed(positions, backbone.patch_resolution, size, backbone.interpolate_mode, 0)

    def encode_levels(self, tokens: Tensor, visible: Tensor, blocks: Sequence[int]) -> tuple[Tensor, list[Tensor]]:
        x, shared = self._enter(gather_parts(tokens, visible))
        if shared is not None or self.backbone.layers[0].attn.relative_position_bias_table is not None:
            raise refusal(
                type(self.backbone), 'encode_levels', 'its biases of relative positions are those of all patches'
            )
        found = {}
        for number, layer in enumerate(self.backbone.layers):
            x = found[number] = layer(x, None)
        return x if self.norm is None else self.norm(x), [found[number] for number in blocks]

    def encode_whole(self, images: Tensor) -> tuple[Tensor, Tensor]:
        x, shared = self._enter(self.embed(images))
        for layer in self.backbone.layers:
            x = layer(x, shared)
        x = x if self.norm is None else self.norm(x)
        return x[:, : self.num_prefix], x[:, self.num_prefix :]

    def _enter(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Patches (B, N, D) behind the class token (B, P+N, D), and the bias that all blocks share (H, P+N, P+N)."""
        backbone = self.backbone
        if backbone.cls_token is not None:
            cls = backbone.cls_token if backbone.pos_embed is None else backbone.cls_token + backbone.pos_embed[:, :1]
            x = torch.cat([cls.expand(len(x), -1, -1), x], dim=1)
        shared = None if backbone.rel_pos_bias is None else backbone.rel_pos_bias()
        return backbone.drop_after_pos(x), shared

    @torch.no_grad()
    def cls_attention(self, tokens: Tensor, minmax_heads: bool = False) -> Tensor:
        if not self.num_prefix:
            raise refusal(type(self.backbone), 'cls_attention', 'it has no class token')
        *before, last = self.backbone.layers
        with without_dropout(self.backbone):
            x, shared = self._enter(tokens)
            for layer in before:
                x = layer(x, shared)
            x = last.ln1(x)
        attn, width = last.attn, x.shape[-1]
        # A bias of the keys shifts all logits of a query alike, so that the softmax does not see it.
        bias = attn.q_bias if attn.bias == 'qv_bias' else None if attn.qkv.bias is None else attn.qkv.bias[:width]
        query = F.linear(x[:, 0], attn.qkv.weight[:width], bias)
        keys = F.linear(x, attn.qkv.weight[width : 2 * width])
        places = shared[:, 0] if shared is not None else None  # what the class token's row adds; one of them at most
        if attn.relative_position_bias_table is not None:
            places = attn.relative_position_bias_table[attn.relative_position_index[0]].t()
        return row_of(query, keys, attn.num_heads, self.num_prefix, minmax_heads, attn.scale, places)


class BEiTPretrainEncoder(BEiTEncoder):
    """BEiT's, and SimMIM's ViT."""

    backbones = (BEiTPretrainViT,)
    backbone: BEiTPretrainViT
    encode_levels = Encoder.encode_levels  # its mask token would have no gradient

    def initialise(self) -> None:
        init_beit(self.backbone)

    def encode_masked(self, images: Tensor, mask: Tensor) -> Tensor:
        return self.backbone(images, mask)[-1]


class CAEEncoder(BEiTEncoder):
    """CAE's encoder drops patches; its mask tokens enter in the regressor."""

    backbones = (CAEPretrainViT,)
    backbone: CAEPretrainViT
    encode_levels = Encoder.encode_levels  # it drops patches its own way

    def initialise(self) -> None:
        init_cae(self.backbone)

    def encode_visible(self, images: Tensor, visible: Tensor) -> Tensor:
        # The pass of CAEPretrainViT, which takes a mask and waits for the device to count what it shows.
        backbone = self.backbone
        tokens, _ = backbone.patch_embed(images)
        x = torch.cat([backbone.cls_token.expand(len(images), -1, -1), gather_parts(tokens, visible[:, None])], dim=1)
        positions = backbone.pos_embed.expand(len(images), -1, -1)
        x = x + torch.cat([positions[:, :1], gather_parts(positions[:, 1:], visible[:, None])], dim=1)
        x = backbone.drop_after_pos(x)
        for layer in backbone.layers:
            x = layer(x=x, rel_pos_bias=None)
        return x if self.norm is None else self.norm(x)
