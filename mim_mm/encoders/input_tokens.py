"""Backbones that take mask tokens at their input (SimMIM, BEiT): the counterpart of dropping patches in ``base.py``.

The sequence keeps its length, so hierarchical backbones work and each image may hide its own number of patches. What a
masker decides about are *units*: squares of the image, at least as large as a patch. The plan lives on the grid of
units and :class:`MaskUnits` translates between that grid and the finer one of the tokens:

    tokens (B, h*w, D)  -- pool -->  unit tokens (B, N, D)  -- masker -->  plan.mask (B, K, N)  -- expand -->  (B, h, w)

SimMIM hides squares of 32 px: 6 x 6 units on Swin with 192-px images (8 x 8 patches of 4 px each), 7 x 7 on a ViT with
224-px images (2 x 2 patches of 16 px). BEiT and CAE hide single patches: unit and patch coincide.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from mmpretrain.models import BEiTViT
from mmpretrain.models.selfsup import BEiTPretrainViT, CAEPretrainViT, SimMIMSwinTransformer
from mmpretrain.models.utils import resize_pos_embed
from torch import Tensor, nn

from mim_mm.encoders.attention import without_dropout
from mim_mm.encoders.base import EXACTLY, Grid
from mim_mm.encoders.initial import init_beit, init_cae


class InputAdapter(NamedTuple):
    """What an algorithm may ask of a backbone that handles its mask itself.

    Attributes:
        describe: ``(backbone) -> Grid`` of the tokens at the input.
        output: ``(backbone) -> (stride in pixels, channels)`` of the feature map at the end.
        embed: ``(backbone, images (B, C, H, W)) -> tokens (B, h*w, D)`` before any attention, without class token, with
            position embedding where the backbone adds one at its input. (SimMIM's and BEiT's ViT and Swin know
            positions only as biases inside attention: there a masker sees appearance alone.)
        encode: ``(backbone, images, mask bool (B, h, w)) -> (B, channels, H/stride, W/stride)``, mask tokens in place
            of the patches where the mask is True. None for a backbone that drops them instead (CAE's encoder, whose
            mask tokens enter in its regressor).
        attention: ``(backbone, tokens (B, h*w, D)) -> (B, h*w)``, what the class token attends to in the last block,
            for maskers that follow it; None for a backbone without class token.
        initialise: ``(backbone) -> None``, as the method's release does; None where mmpretrain's own is that (Swin).
    """

    describe: Callable[[nn.Module], Grid]
    output: Callable[[nn.Module], tuple[int, int]]
    embed: Callable[[nn.Module, Tensor], Tensor]
    encode: Callable[[nn.Module, Tensor, Tensor], Tensor] | None
    attention: Callable[[nn.Module, Tensor], Tensor] | None = None
    initialise: Callable[[nn.Module], None] | None = None


INPUT_ADAPTERS: dict[type[nn.Module], InputAdapter] = {}


def input_adapter_of(backbone: nn.Module | type[nn.Module]) -> InputAdapter:
    """The adapter of a backbone, or of a class of backbones: of exactly this class, see :func:`adapter_of`.

    Raises:
        NotImplementedError: if there is none.
    """
    kind = backbone if isinstance(backbone, type) else type(backbone)
    if kind in INPUT_ADAPTERS:
        return INPUT_ADAPTERS[kind]
    raise NotImplementedError(
        f"{kind.__name__} has no place for mask tokens at its input: supported are mmpretrain's "
        f'{", ".join(k.__name__ for k in INPUT_ADAPTERS)} ({EXACTLY}); add yours to '
        'mim_mm.encoders.input_tokens.INPUT_ADAPTERS, or use MAE, which drops patches'
    )


@dataclass(frozen=True)
class MaskUnits:
    """Squares of ``factor`` x ``factor`` tokens that are hidden as a whole; N = rows * columns of them."""

    rows: int
    columns: int
    factor: int

    @classmethod
    def cover(cls, height: int, width: int, patch_size: int, unit: int) -> MaskUnits:
        """The units of ``unit`` px that tile an image of height x width px in patches of ``patch_size`` px.

        Raises:
            ValueError: if a unit is no whole number of patches or the image no whole number of units.
        """
        if unit < patch_size or unit % patch_size:
            raise ValueError(
                f'mask_unit is {unit} px: it must be a whole number of {patch_size}-px patches, e.g. {2 * patch_size}'
            )
        if height % unit or width % unit:
            raise ValueError(
                f'images of {height} x {width} px are not a whole number of {unit}-px mask units: crop them to '
                f'multiples of {unit}, or choose another mask_unit'
            )
        return cls(height // unit, width // unit, unit // patch_size)

    def pool(self, tokens: Tensor) -> Tensor:
        """Tokens (B, h*w, D) to the mean of each unit (B, N, D), row-major; tokens themselves where the factor is 1."""
        if self.factor == 1:
            return tokens
        batch, _, dims = tokens.shape
        squares = tokens.view(batch, self.rows, self.factor, self.columns, self.factor, dims)
        return squares.mean(dim=(2, 4)).flatten(1, 2)

    def expand(self, mask: Tensor) -> Tensor:
        """A mask over units (B, N) to one over tokens (B, h, w), of any dtype."""
        squares = mask.view(-1, self.rows, self.columns)
        return squares.repeat_interleave(self.factor, dim=1).repeat_interleave(self.factor, dim=2)


def _describe(backbone: nn.Module, num_prefix: int) -> Grid:
    height, width = backbone.patch_resolution
    projection = backbone.patch_embed.projection
    return Grid(
        height=height,
        width=width,
        patch_size=projection.stride[0],
        in_channels=projection.in_channels,
        embed_dims=backbone.embed_dims,
        num_prefix=num_prefix,
    )


def describe_swin(backbone: SimMIMSwinTransformer) -> Grid:
    return _describe(backbone, 0)


def output_of_swin(backbone: SimMIMSwinTransformer) -> tuple[int, int]:
    last = backbone.num_layers - 1
    if tuple(backbone.out_indices) != (last,):
        raise ValueError(
            f'SimMIMSwinTransformer has out_indices {backbone.out_indices}: under a mask only its last stage has the '
            f'width that its norm expects; set out_indices=({last},)'
        )
    return describe_swin(backbone).patch_size * 2**last, backbone.num_features[last]


def embed_swin(backbone: SimMIMSwinTransformer, images: Tensor) -> Tensor:
    tokens, _ = backbone.patch_embed(images)
    return tokens + backbone.absolute_pos_embed if backbone.use_abs_pos_embed else tokens


def encode_swin(backbone: SimMIMSwinTransformer, images: Tensor, mask: Tensor) -> Tensor:
    return backbone(images, mask)[-1]


def describe_vit(backbone: BEiTViT) -> Grid:
    return _describe(backbone, backbone.num_extra_tokens)


def output_of_vit(backbone: BEiTViT) -> tuple[int, int]:
    return describe_vit(backbone).patch_size, backbone.embed_dims


def embed_vit(backbone: BEiTViT, images: Tensor) -> Tensor:
    tokens, size = backbone.patch_embed(images)
    if backbone.pos_embed is None:
        return tokens
    positions = backbone.pos_embed[:, backbone.num_extra_tokens :]
    return tokens + resize_pos_embed(positions, backbone.patch_resolution, size, backbone.interpolate_mode, 0)


def encode_vit(backbone: BEiTPretrainViT, images: Tensor, mask: Tensor) -> Tensor:
    tokens = backbone(images, mask)[-1][:, backbone.num_extra_tokens :]
    return tokens.transpose(1, 2).unflatten(2, mask.shape[1:])


@torch.no_grad()
def attention_of_vit(backbone: BEiTViT, tokens: Tensor) -> Tensor:
    """:func:`mim_mm.encoders.attention.cls_attention` for BEiT's blocks: split biases, bias by relative position."""
    cls = backbone.cls_token if backbone.pos_embed is None else backbone.cls_token + backbone.pos_embed[:, :1]
    x = torch.cat([cls.expand(len(tokens), -1, -1), tokens], dim=1)
    shared = None if backbone.rel_pos_bias is None else backbone.rel_pos_bias()
    with without_dropout(backbone):
        x = backbone.drop_after_pos(x)
        for layer in backbone.layers[:-1]:
            x = layer(x, shared)
        x = backbone.layers[-1].ln1(x)
    attn = backbone.layers[-1].attn
    width = x.shape[-1]
    # A bias of the keys shifts all logits of a query alike, so that the softmax does not see it.
    bias = attn.q_bias if attn.bias == 'qv_bias' else None if attn.qkv.bias is None else attn.qkv.bias[:width]
    query = F.linear(x[:, 0], attn.qkv.weight[:width], bias)
    keys = F.linear(x, attn.qkv.weight[width : 2 * width])
    with torch.autocast(x.device.type, enabled=False):
        query, keys = (part.float().unflatten(-1, (attn.num_heads, -1)) for part in (query, keys))
        logits = torch.einsum('bhd,bnhd->bhn', query, keys) * attn.scale
        if shared is not None:
            logits = logits + shared[:, 0].float()
        if attn.relative_position_bias_table is not None:
            logits = logits + attn.relative_position_bias_table[attn.relative_position_index[0]].t().float()
        return logits.softmax(dim=-1)[..., 1:].mean(dim=1)


INPUT_ADAPTERS[SimMIMSwinTransformer] = InputAdapter(describe_swin, output_of_swin, embed_swin, encode_swin)
INPUT_ADAPTERS[BEiTPretrainViT] = InputAdapter(
    describe_vit, output_of_vit, embed_vit, encode_vit, attention_of_vit, init_beit
)
INPUT_ADAPTERS[CAEPretrainViT] = InputAdapter(describe_vit, output_of_vit, embed_vit, None, attention_of_vit, init_cae)
