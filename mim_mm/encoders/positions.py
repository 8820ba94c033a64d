"""Position tables, fixed or resampled to another grid, and the initialisation that MAE gives its linear layers."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from mmpretrain.models.utils import resize_pos_embed
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


def table_for(
    table: Tensor, base: tuple[int, int], grid: tuple[int, int] | None, patches: int, num_prefix: int = 0
) -> Tensor:
    """The position table of the grid that a batch has.

    Another grid gets the table resampled (bicubic, fp32) as mmpretrain resamples those of the encoder, so that a
    position means the same place of the image at every size. Cheap enough to be done in every step (a table has some
    100,000 values), which leaves nothing behind that could be out of date, or that a captured graph would own.

    Args:
        table: (1, P+N, D') for the grid ``base``.
        base: rows and columns that the table was made for.
        grid: rows and columns of the batch; None where it must be the base.
        patches: how many the plan of the batch has.
        num_prefix: P, rows of the table that stay as they are.

    Returns:
        (1, P+patches, D'); the table itself on the base grid.

    Raises:
        ValueError: the plan has another number of patches than the grid.
    """
    rows, columns = grid or base
    if rows * columns == patches:
        if (rows, columns) == tuple(base):
            return table
        return resize_pos_embed(table, base, (rows, columns), mode='bicubic', num_extra_tokens=num_prefix)
    if grid is None:
        raise ValueError(
            f'the plan has {patches} patches, the decoder positions for {rows * columns}: '
            'feed images of the size the backbone was built for (img_size), or train at several sizes with '
            'ProgressiveResolutionHook'
        )
    raise ValueError(f'the plan has {patches} patches, a grid of {rows} x {columns} has {rows * columns}')


def positions_by_scale(table: Tensor, base: tuple[int, int], grid: tuple[int, int]) -> Tensor:
    """The table of another grid as DINO and iBOT resample it: by the factor ``(n + 0.1) / base`` of each side.

    The sampling points lie a little closer together than those of :func:`table_for`, which divides by the true ratio:
    4 % of the values on 6 x 6 of 14 x 14 patches.

    Args:
        table: (1, N, D) for the grid ``base``, without prefix.

    Returns:
        (1, rows * columns, D); the table itself on its own grid.
    """
    if tuple(grid) == tuple(base):
        return table
    maps = table.unflatten(1, tuple(base)).permute(0, 3, 1, 2)
    factor = tuple((new + 0.1) / old for new, old in zip(grid, base))
    maps = F.interpolate(maps, scale_factor=factor, mode='bicubic', align_corners=False)
    if tuple(maps.shape[-2:]) != tuple(grid):
        raise ValueError(f'positions of {base} patches resampled to {tuple(maps.shape[-2:])}, not to {grid}')
    return maps.flatten(2).transpose(1, 2)


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
