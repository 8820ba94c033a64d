"""The class token's row of the last block's attention, for masks that follow it (AM, AMT, AttMask).

mmpretrain's blocks run a fused kernel that keeps no weights. So all blocks but the last run as they are, and of the
last one only what this row needs is computed: the keys of N tokens and one query.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn


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


def project_row(x: Tensor, qkv: nn.Linear, prefix: int) -> tuple[Tensor, Tensor]:
    """Query and keys of the row by one layer that gives q, k and v.

    Args:
        x: (B, P+N, D), the input of the last block's attention, after the norm.
        prefix: P; 0 asks with the mean of all queries.

    Returns:
        query (B, D) and keys (B, P+N, D).
    """
    width = x.shape[-1]
    asking = x[:, :1] if prefix else x.mean(dim=1, keepdim=True)
    bias = qkv.bias
    query = F.linear(asking, qkv.weight[:width], None if bias is None else bias[:width])
    keys = F.linear(x, qkv.weight[width : 2 * width], None if bias is None else bias[width : 2 * width])
    return query[:, 0], keys


def row_of(
    query: Tensor,
    keys: Tensor,
    num_heads: int,
    prefix: int,
    minmax_heads: bool,
    scale: float | None = None,
    bias: Tensor | None = None,
) -> Tensor:
    """The softmax of one query in fp32, its patch entries averaged over heads.

    Args:
        query: (B, D).
        keys: (B, P+N, D).
        scale: factor of the logits, ``d ** -0.5`` by default.
        bias: added to the logits, (H, P+N).

    Returns:
        (B, N); see :meth:`mim_mm.encoders.base.Encoder.cls_attention`.
    """
    with torch.autocast(keys.device.type, enabled=False):
        query, keys = (part.float().unflatten(-1, (num_heads, -1)) for part in (query, keys))
        logits = torch.einsum('bhd,bnhd->bhn', query, keys) * (query.shape[-1] ** -0.5 if scale is None else scale)
        if bias is not None:
            logits = logits + bias.float()
        weights = logits.softmax(dim=-1)[..., prefix:]
        if minmax_heads:
            weights = weights - weights.amin(dim=-1, keepdim=True)
            weights = weights / weights.amax(dim=-1, keepdim=True).clamp(min=1e-12)
        return weights.mean(dim=1)
