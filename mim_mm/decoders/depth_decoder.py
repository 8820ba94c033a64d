"""The decoders of BootMAE (Dong et al., ECCV 2022): hidden patches look at one another and at a depth of the encoder.

Like MAE's decoder (mae_decoder.py) they run in permuted order, and the head on hidden patches alone: what a head says
of visible patches enters no loss.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mim_mm.encoders.fused import attention, self_attention
from mim_mm.encoders.grid import Grid
from mim_mm.encoders.initial import cut_normal_, init_separate
from mim_mm.encoders.positions import sincos_table


class SelfAttention(nn.Module):
    """Attention whose heads are ``dims // num_heads`` wide, also where that leaves a rest: 12 of 42 in 512.

    Queries and values have a bias, keys none.
    """

    def __init__(self, dims: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        inner = dims // num_heads * num_heads
        self.qkv = nn.Linear(dims, 3 * inner, bias=False)
        self.q_bias, self.v_bias = nn.Parameter(torch.zeros(inner)), nn.Parameter(torch.zeros(inner))
        self.proj = nn.Linear(inner, dims)

    def forward(self, x: Tensor) -> Tensor:
        """(R, L, D') to the same."""
        bias = torch.cat([self.q_bias, torch.zeros_like(self.q_bias), self.v_bias])
        return self.proj(self_attention(F.linear(x, self.qkv.weight, bias), self.num_heads))


class CrossAttention(nn.Module):
    """As :class:`SelfAttention`, keys and values from other tokens."""

    def __init__(self, dims: int, context_dims: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        inner = dims // num_heads * num_heads
        self.q, self.kv = nn.Linear(dims, inner, bias=False), nn.Linear(context_dims, 2 * inner, bias=False)
        self.q_bias, self.v_bias = nn.Parameter(torch.zeros(inner)), nn.Parameter(torch.zeros(inner))
        self.proj = nn.Linear(inner, dims)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """x (R, L, D'), context (R, V, D); returns (R, L, D')."""
        query = F.linear(x, self.q.weight, self.q_bias)
        both = F.linear(context, self.kv.weight, torch.cat([torch.zeros_like(self.v_bias), self.v_bias]))
        query = query.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
        key, value = both.unflatten(-1, (2, self.num_heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        return self.proj(attention(query, key, value).transpose(1, 2).flatten(2))


class DepthBlock(nn.Module):
    """``x + self-attention``, ``x + cross-attention`` to the context, ``x + mlp``, each behind its norm."""

    def __init__(self, dims: int, context_dims: int, num_heads: int, mlp_ratio: float) -> None:
        super().__init__()

        def norm(width: int) -> nn.LayerNorm:
            return nn.LayerNorm(width, eps=1e-6)

        self.ln1, self.attn = norm(dims), SelfAttention(dims, num_heads)
        self.ln_query, self.ln_context = norm(dims), norm(context_dims)
        self.cross = CrossAttention(dims, context_dims, num_heads)
        self.ln2, hidden = norm(dims), int(dims * mlp_ratio)
        self.mlp = nn.Sequential(nn.Linear(dims, hidden), nn.GELU(), nn.Linear(hidden, dims))

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """x (R, L, D'), context (R, V, D); returns (R, L, D')."""
        x = x + self.attn(self.ln1(x))
        x = x + self.cross(self.ln_query(x), self.ln_context(context))
        return x + self.mlp(self.ln2(x))


class DepthDecoder(nn.Module):
    """Linear to ``dims``, mask tokens with positions at hidden places, blocks, norm, head.

    Visible tokens get no position here: they have had theirs in the encoder.

    Args:
        grid: geometry of the encoder.
        dims: width D'; a multiple of 4.
        depth: blocks, 2 in BootMAE.
        num_heads: the encoder's in BootMAE, whatever the width.
        pixels: the head puts out the values of a patch (a transposed convolution, as released), else D' values.
        mlp_ratio: hidden width of the MLPs over ``dims``.
    """

    def __init__(self, grid: Grid, dims: int, depth: int, num_heads: int, pixels: bool, mlp_ratio: float = 4.0) -> None:
        super().__init__()
        if dims < num_heads:
            raise ValueError(f'a decoder {dims} wide has no room for {num_heads} heads: widen it or set num_heads')
        self.num_prefix = grid.num_prefix
        self.embed = nn.Linear(grid.embed_dims, dims)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, dims))
        table = sincos_table(grid.height, grid.width, dims, grid.num_prefix)
        self.pos_embed = nn.Parameter(table, requires_grad=False)
        self.blocks = nn.ModuleList(DepthBlock(dims, grid.embed_dims, num_heads, mlp_ratio) for _ in range(depth))
        self.norm = nn.LayerNorm(dims, eps=1e-6)
        if pixels:
            self.head = nn.ConvTranspose2d(dims, grid.in_channels, grid.patch_size, grid.patch_size)
        else:
            self.head = nn.Linear(dims, dims)
        self.init_weights()

    def init_weights(self) -> None:
        """As the release: :func:`init_separate`, mask token cut normal; the transposed convolution as torch does."""
        init_separate(self)
        cut_normal_(self.mask_token)
        if isinstance(self.head, nn.ConvTranspose2d):
            self.head.reset_parameters()

    def forward(self, latent: Tensor, context: Tensor, order: Tensor) -> Tensor:
        """Predict the hidden patches.

        Args:
            latent: (R, P+V, D) after the encoder's final norm, patches in the order of ``order[..., :V]``.
            context: (R, P+V, D), what the encoder put out at the depth that is read.
            order: long (R, N), visible patches first.

        Returns:
            (R, N-V, values) in the order of ``order[..., V:]``; the values of a patch as ``patchify`` has them.
        """
        length = latent.shape[1]
        hidden = order[:, length - self.num_prefix :]
        # in the type of the parameters: what the blocks add to stays in fp32 under autocast
        masked = self.mask_token + self.pos_embed[0, self.num_prefix :][hidden]
        x = torch.cat([self.embed(latent).to(masked.dtype), masked], dim=1)
        for block in self.blocks:
            x = block(x, context)
        x = self.norm(x[:, length:])
        if isinstance(self.head, nn.Linear):
            return self.head(x)
        weight, bias = self.head.weight, self.head.bias  # (D', C, p, p), (C,)
        return F.linear(x, weight.permute(2, 3, 1, 0).flatten(0, 2), bias.repeat(weight.shape[2] * weight.shape[3]))
