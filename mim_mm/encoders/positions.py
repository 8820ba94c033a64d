"""Fixed sine-cosine position tables and the initialisation that MAE gives its linear layers."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mim_mm.compat.initializers import trunc_normal_


def sincos_table(height: int, width: int, dims: int, num_prefix: int = 0) -> Tensor:
    """Two-dimensional sine-cosine table (1, P+H*W, D); prefix rows are zero.

    The first half of the channels encodes the row, the second half the column, each as D/4 sines then D/4 cosines of
    frequency ``10000 ** (-k / (D/4))``. That is the convention of MoCo v3 and mmpretrain; MAE's release has the halves
    the other way round, which matters only when a table is regenerated for loaded weights: never do that, tables
    travel in the checkpoint.

    Raises:
        ValueError: if D is not a multiple of 4.
    """
    if dims % 4:
        raise ValueError(f'embed_dims {dims} is not a multiple of 4, which sine and cosine need: use learned positions')
    omega = 10000 ** (-torch.arange(dims // 4, dtype=torch.float64) / (dims // 4))

    def encode_axis(length: int) -> Tensor:
        angle = torch.arange(length, dtype=torch.float64)[:, None] * omega
        return torch.cat([angle.sin(), angle.cos()], dim=1)

    rows = encode_axis(height)[:, None].expand(-1, width, -1)
    columns = encode_axis(width)[None].expand(height, -1, -1)
    table = torch.cat([rows, columns], dim=-1).reshape(1, height * width, dims)
    return torch.cat([table.new_zeros(1, num_prefix, dims), table], dim=1).float()


def init_linears(module: nn.Module) -> None:
    """Xavier-uniform weights and zero biases for every Linear, identity LayerNorms; qkv counts as one matrix (MAE)."""
    for child in module.modules():
        if isinstance(child, nn.Linear):
            nn.init.xavier_uniform_(child.weight)
            if child.bias is not None:
                nn.init.zeros_(child.bias)
        elif isinstance(child, nn.LayerNorm) and child.elementwise_affine:
            nn.init.ones_(child.weight)
            nn.init.zeros_(child.bias)


def set_positions(backbone: nn.Module, kind: str, height: int, width: int, num_prefix: int) -> None:
    """Fill ``backbone.pos_embed`` (1, P+N, D); a sine-cosine table is fixed, a learned one trains."""
    if kind not in ('sincos', 'learned'):
        raise ValueError(f"pos_embed is '{kind}': use 'sincos' (fixed, as MAE) or 'learned'")
    if kind == 'learned':
        trunc_normal_(backbone.pos_embed, std=0.02)
        backbone.pos_embed.requires_grad_(True)
        return
    table = sincos_table(height, width, backbone.pos_embed.shape[-1], num_prefix)
    backbone.pos_embed.data.copy_(table)
    backbone.pos_embed.requires_grad_(False)


def plain_drop_path(module: nn.Module) -> None:
    """Turn drop-path rates into Python floats.

    mmpretrain takes them from ``np.linspace``; a numpy float makes torch.compile treat ``drop_prob == 0.`` as data and
    break the graph at every block.
    """
    for child in module.modules():
        if hasattr(child, 'drop_prob'):
            child.drop_prob = float(child.drop_prob)
