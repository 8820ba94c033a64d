"""CAE's attentive probe: one learnt query asks the frozen tokens (Chen et al., IJCV 2023, arXiv 2202.03026)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn

from mim_mm.registry import MODELS


@MODELS.register_module()
class AttentivePool(BaseModule):
    """One cross-attention from a learnt query to all tokens, then BatchNorm without affine part.

    Query, keys and values have a LayerNorm each; there is no residual and no MLP, as in CAE's ``AttentiveBlock``. The
    query starts at zero, so the attention starts uniform. Keys have no bias (it would cancel in the softmax).

    Args:
        embed_dims: D, width of the tokens.
        num_heads: divides D; CAE takes the encoder's.
        eps: of the LayerNorms.
        init_cfg: N(0, 0.02) truncated for matrices, as CAE, by default.

    Raises:
        ValueError: ``num_heads`` does not divide ``embed_dims``.
    """

    def __init__(self, embed_dims: int, num_heads: int, eps: float = 1e-6, init_cfg: dict | None = None) -> None:
        super().__init__(init_cfg or dict(type='TruncNormal', layer='Linear', std=0.02))
        if num_heads < 1 or embed_dims % num_heads:
            raise ValueError(f'num_heads={num_heads} must divide embed_dims={embed_dims}')
        self.num_heads = num_heads
        self.query = nn.Parameter(torch.zeros(1, 1, embed_dims))
        self.norm_q, self.norm_k, self.norm_v = (nn.LayerNorm(embed_dims, eps=eps) for _ in range(3))
        self.to_q = nn.Linear(embed_dims, embed_dims)
        self.to_k = nn.Linear(embed_dims, embed_dims, bias=False)
        self.to_v = nn.Linear(embed_dims, embed_dims)
        self.proj = nn.Linear(embed_dims, embed_dims)
        self.bn = nn.BatchNorm1d(embed_dims, affine=False)

    def forward(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor]:
        """Tokens (B, L, D), the last entry of ``inputs`` -> ((B, D),)."""
        tokens = inputs[-1]
        query = self.to_q(self.norm_q(self.query)).expand(len(tokens), -1, -1)
        parts = (query, self.to_k(self.norm_k(tokens)), self.to_v(self.norm_v(tokens)))
        answer = F.scaled_dot_product_attention(*(p.unflatten(2, (self.num_heads, -1)).transpose(1, 2) for p in parts))
        return (self.bn(self.proj(answer.transpose(1, 2).flatten(2))[:, 0]),)
