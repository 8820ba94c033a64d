"""Self-attention as the backbones compute it, with less work in the backward pass.

mmpretrain's blocks take q, k and v by indexing one tensor. The backward pass of an index writes zeros over the whole
tensor, so each block fills and adds three of them; that of ``unbind`` is one stack. And torch's fused attention is
several times slower backward in bf16 on a CPU than in fp32 (docs/speed.md), so there it runs in fp32.
"""

from __future__ import annotations

import torch
from mmpretrain.models.backbones.hivit import Attention as HiViTAttention
from mmpretrain.models.utils import MultiheadAttention
from torch import Tensor, nn
from torch._subclasses import FakeTensor
from torch.nn import functional as F


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Tensor | None = None,
    dropout: float = 0.0,
    scale: float | None = None,
) -> Tensor:
    """``softmax(scale * q k^T + bias) v`` by torch's fused kernels.

    With gradients on a CPU half-precision inputs are attended in fp32 and the result is rounded back: more exact, and
    faster. Everything else runs in the type that it comes in.

    Args:
        query: (B, H, N, d).
        key, value: (B, H, M, d).
        bias: added to the logits, or boolean with True = attend; broadcasts to (B, H, N, M).
        dropout: probability of dropping an attention weight.
        scale: factor of the logits, ``d ** -0.5`` by default.

    Returns:
        (B, H, N, d) in the type of ``query``.
    """
    dtype = query.dtype
    if _better_in_fp32(query):
        query, key, value = query.float(), key.float(), value.float()
    if bias is not None and bias.dtype != torch.bool:
        bias = bias.to(query.dtype)
    with torch.autocast('cpu', enabled=False):  # which would turn fp32 back into bf16; a GPU's is not touched
        out = F.scaled_dot_product_attention(query, key, value, attn_mask=bias, dropout_p=dropout, scale=scale)
    return out.to(dtype)


def _better_in_fp32(x: Tensor) -> bool:
    half = x.dtype in (torch.bfloat16, torch.float16)
    # A tensor without data stands for one on a GPU (mim_mm.cost).
    return half and x.device.type == 'cpu' and torch.is_grad_enabled() and not isinstance(x, FakeTensor)


def self_attention(qkv: Tensor, num_heads: int, dropout: float = 0.0, scale: float | None = None) -> Tensor:
    """:func:`attention` of tokens among themselves.

    Args:
        qkv: (B, N, 3 * D), the heads of q, then those of k, then those of v.
        num_heads: H.

    Returns:
        (B, N, D).
    """
    dtype = qkv.dtype
    if _better_in_fp32(qkv):
        qkv = qkv.float()  # here, where it lies in one piece: casting strided heads takes twice as long
    # Taken apart where the three lie, so that their gradients are put together there and not copied once more.
    query, key, value = (part.transpose(1, 2) for part in qkv.unflatten(-1, (3, num_heads, -1)).unbind(2))
    return attention(query, key, value, dropout=dropout, scale=scale).transpose(1, 2).flatten(2).to(dtype)


class FusedMultiheadAttention(MultiheadAttention):
    """mmpretrain's ``MultiheadAttention``, q, k and v taken apart in one step."""

    def forward(self, x: Tensor) -> Tensor:
        x = self_attention(self.qkv(x), self.num_heads, self.attn_drop if self.training else 0.0)
        return self.out_drop(self.gamma1(self.proj_drop(self.proj(x))))


class FusedHiViTAttention(HiViTAttention):
    """HiViT's attention by a fused kernel that forms no N x N tensor."""

    def forward(self, x: Tensor, rpe_index: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        if rpe_index is not None or mask is not None:
            return super().forward(x, rpe_index, mask)
        x = self_attention(self.qkv(x), self.num_heads, self.attn_drop.p if self.training else 0.0, self.scale)
        return self.proj_drop(self.proj(x))


def fuse_attention(module: nn.Module) -> int:
    """Let the attention layers inside ``module`` run as above; parameters, their names and values stay as they are.

    Layers that do more than plain attention (subclasses, ``v_shortcut``, ``qk_scale``) are left alone.

    Returns:
        How many layers were changed.
    """
    changed = 0
    for child in module.modules():
        if type(child) is HiViTAttention:
            child.__class__ = FusedHiViTAttention
        elif type(child) is MultiheadAttention and _is_plain(child):
            child.__class__ = FusedMultiheadAttention
        else:
            continue
        changed += 1
    return changed


def _is_plain(layer: MultiheadAttention) -> bool:
    return not layer.v_shortcut and layer.scaled_dot_product_attention is F.scaled_dot_product_attention
