"""The class token's row of the last block's attention, for masks that follow it (AM, AMT, AttMask).

mmpretrain's blocks run a fused kernel that keeps no weights. So all blocks but the last run as they are, and of the
last one only what this row needs is computed: the keys of N tokens and one query.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from mmpretrain.models import HiViT, VisionTransformer
from torch import Tensor, nn

# How a backbone turns tokens (B, N, D) into the input of its last block's attention (B, P+N, D), after the norm.
Entrance = Callable[[nn.Module, Tensor], tuple[Tensor, nn.Module]]


def _into_vit(backbone: VisionTransformer, tokens: Tensor) -> tuple[Tensor, nn.Module]:
    x = tokens
    if backbone.cls_token is not None:
        cls = backbone.cls_token + backbone.pos_embed[:, : backbone.num_extra_tokens]
        x = torch.cat([cls.expand(len(x), -1, -1), x], dim=1)
    x = backbone.pre_norm(backbone.drop_after_pos(x))
    for layer in backbone.layers[:-1]:
        x = layer(x)
    return backbone.layers[-1].ln1(x), backbone.layers[-1].attn


def _into_hivit(backbone: HiViT, tokens: Tensor) -> tuple[Tensor, nn.Module]:
    x = backbone.pos_drop(tokens)
    for block in backbone.blocks[-backbone.num_main_blocks : -1]:
        x = block(x)
    return backbone.blocks[-1].norm1(x), backbone.blocks[-1].attn


ENTRANCES: dict[type[nn.Module], Entrance] = {VisionTransformer: _into_vit, HiViT: _into_hivit}


@contextmanager
def without_dropout(backbone: nn.Module) -> Iterator[None]:
    """Dropout and drop path off for a moment; the flags of other modules stay untouched."""
    active = [
        module
        for module in backbone.modules()
        if module.training and any(getattr(module, name, 0) for name in ('p', 'drop_prob', 'attn_drop'))
    ]
    for module in active:
        module.training = False
    try:
        yield
    finally:
        for module in active:
            module.training = True


@torch.no_grad()
def cls_attention(backbone: nn.Module, tokens: Tensor, minmax_heads: bool = False) -> Tensor:
    """How much the class token attends to each patch in the last block.

    ``softmax(q_cls k^T / sqrt(d))`` over all tokens, its patch entries averaged over heads. O(N) for that block; the
    blocks before it are run in full, without dropout and without gradient. A backbone without class token (HiViT, or
    ``with_cls_token=False``) asks with the mean of all queries instead.

    Args:
        backbone: an mmpretrain ``VisionTransformer`` or ``HiViT``, no subclass: see ``mim_mm.encoders.adapter_of``.
        tokens: (B, N, D) with position embedding, without class token, as the adapter's ``embed`` gives them.
        minmax_heads: rescale each head's patch entries to [0, 1] before averaging, as AMT's code does.

    Returns:
        (B, N), fp32, >= 0; without ``minmax_heads`` a row sums to at most 1, what is missing being the class token's
        attention to itself.

    Raises:
        NotImplementedError: for any other backbone.
    """
    entrance = ENTRANCES.get(type(backbone))
    if entrance is None:
        raise NotImplementedError(
            f'{type(backbone).__name__} shows no class-token attention: supported are '
            f'{" and ".join(kind.__name__ for kind in ENTRANCES)}; use a masker that needs none, or add it to ENTRANCES'
        )
    with without_dropout(backbone):
        x, attn = entrance(backbone, tokens)
    width = x.shape[-1]
    prefix = x.shape[1] - tokens.shape[1]
    query_of = x[:, :1] if prefix else x.mean(dim=1, keepdim=True)
    bias = attn.qkv.bias
    query = F.linear(query_of, attn.qkv.weight[:width], None if bias is None else bias[:width])
    keys = F.linear(x, attn.qkv.weight[width : 2 * width], None if bias is None else bias[width : 2 * width])
    with torch.autocast(tokens.device.type, enabled=False):
        query, keys = (part.float().unflatten(-1, (attn.num_heads, -1)) for part in (query[:, 0], keys))
        logits = torch.einsum('bhd,bnhd->bhn', query, keys) * query.shape[-1] ** -0.5
        weights = logits.softmax(dim=-1)[..., prefix:]
        if minmax_heads:
            weights = weights - weights.amin(dim=-1, keepdim=True)
            weights = weights / weights.amax(dim=-1, keepdim=True).clamp(min=1e-12)
        return weights.mean(dim=1)
