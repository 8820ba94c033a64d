"""Bring the tensors of a pretraining to the places and shapes of a downstream backbone.

BEiT and SimMIM's ViT learn one table of relative positions for all blocks and fine-tune one a block; a table of another
grid is resized; a patch embedding of another patch size is resampled. Each change is named, so that the load report
can say it. mmpretrain does the first two in loading hooks, which skip a prefix in silence (the tables then stay random)
and call ``scipy.interpolate.interp2d``, which SciPy 1.14 removed; nothing here depends on them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ['convert', 'resample_patches', 'resize_relative_bias']

TABLE = 'relative_position_bias_table'
SHARED = f'rel_pos_bias.{TABLE}'
CLASS_ROWS = 3  # class token to patch, patch to class token, class token to itself: BEiT's last rows
PATCH_WEIGHT = 'patch_embed.projection.weight'
REGISTERS = 'register_tokens'


def _growth(half: int, target: int) -> float:
    """The q >= 1 with 1 + q + ... + q ** (half - 1) = target; 1 where the target is not larger, or half is 1."""
    if target <= half or half < 2:
        return 1.0
    low, high = 1.0, float(target)
    while high - low > 1e-9:
        middle = (low + high) / 2
        low, high = (low, middle) if sum(middle**i for i in range(half)) > target else (middle, high)
    return low


def _places(half: int, target: int) -> np.ndarray:
    """Where the 2 * half + 1 stored offsets lie among the target's -target..target."""
    steps = np.cumsum([_growth(half, target) ** i for i in range(half)])
    return np.concatenate((-steps[::-1], [0.0], steps))


def resize_relative_bias(table: Tensor, source: tuple[int, int], target: tuple[int, int]) -> Tensor:
    """Table of relative positions of a grid ``source`` -> the same for ``target``.

    As BEiT does (Bao et al. 2022, its release): the stored offsets are laid out with gaps that grow geometrically, so
    that near offsets keep their values almost unchanged and the farthest meets the farthest; a cubic spline
    interpolates. A smaller grid takes the middle of the table (BEiT stretches it by up to 1.01 a step).

    Args:
        table: ((2h - 1) * (2w - 1), heads), without entries for a class token.
        source: (h, w), in tokens.
        target: (H, W), in tokens.

    Returns:
        ((2H - 1) * (2W - 1), heads), of the table's dtype.
    """
    from scipy.interpolate import RectBivariateSpline  # a dependency of scikit-learn

    if tuple(source) == tuple(target):
        return table
    rows, cols = (_places(s - 1, t - 1) for s, t in zip(source, target))
    new_rows, new_cols = (np.arange(-(t - 1), t, dtype=float) for t in target)
    maps = table.detach().double().t().reshape(-1, len(rows), len(cols)).cpu().numpy()
    degree = min(3, len(rows) - 1), min(3, len(cols) - 1)
    if len(table) == 1:  # one token has one offset: the same bias everywhere
        return table[:1].expand(len(new_rows) * len(new_cols), -1)
    resized = [RectBivariateSpline(rows, cols, m, kx=degree[0], ky=degree[1])(new_rows, new_cols) for m in maps]
    return torch.from_numpy(np.stack(resized)).flatten(1).t().contiguous().to(table)


def resample_patches(weight: Tensor, size: tuple[int, int]) -> Tensor:
    """Patch embedding of another patch size (FlexiViT, Beyer et al. 2023, eq. 4): the pseudo-inverse of the resize.

    An enlarged patch gives the token that the patch gave before: <resize(x), new> = <x, old> for every x when the patch
    grows, and the closest to it when it shrinks. Resizing the weights like an image would change the scale of the
    tokens instead. Bicubic, antialiased.

    Args:
        weight: (D, C, h, w).
        size: (H, W).

    Returns:
        (D, C, H, W).
    """
    old = weight.shape[-2:]
    if tuple(old) == tuple(size):
        return weight
    basis = torch.eye(math.prod(old), dtype=torch.float64).view(-1, 1, *old)
    enlarge = F.interpolate(basis, size=tuple(size), mode='bicubic', antialias=True, align_corners=False).flatten(1)
    new = weight.detach().double().cpu().flatten(2) @ torch.linalg.pinv(enlarge).T
    return new.unflatten(2, tuple(size)).to(weight)


def _square(rows: int) -> tuple[tuple[int, int], int] | None:
    """((h, w), rows for a class token) of a table with ``rows`` rows, if its window is a square."""
    for extra in (0, CLASS_ROWS):
        side = math.isqrt(max(rows - extra, 0))
        if side * side == rows - extra and side % 2:
            return ((side + 1) // 2,) * 2, extra
    return None


def _fit_table(table: Tensor, target: Tensor, owner: nn.Module) -> Tensor | None:
    """The table in the shape of ``target``, or None where no rule says how."""
    source = _square(table.shape[0])
    window = getattr(owner, 'window_size', None) or getattr(owner, 'size', None)
    if source is None or window is None or table.shape[1:] != target.shape[1:]:
        return None
    kept = target.shape[0] - math.prod(2 * n - 1 for n in window)
    if kept not in (0, source[1]):
        return None
    grid, extra = source
    resized = resize_relative_bias(table[: len(table) - extra], grid, tuple(window))
    return torch.cat((resized, table[len(table) - kept :])) if kept else resized


def _place_registers(state: dict[str, Tensor], count: int, rows: int) -> dict[str, str]:
    """Registers under the name that DINOv2 gives them; positions that timm's have are added to them, which computes the
    same. Changes ``state``; returns what was done."""
    moved = {}
    other = next((n for n in ('reg_token', 'reg_tokens', 'storage_tokens') if n in state), None)
    if other and REGISTERS not in state:
        state[REGISTERS] = state.pop(other)
        moved[REGISTERS] = f'from {other}'
    found, table = state.get(REGISTERS), state.get('pos_embed')
    if found is None or found.ndim != 3 or found.shape[1] != count or table is None or table.ndim != 3:
        return moved
    first = state['cls_token'].shape[1] if 'cls_token' in state else 0
    # Which rows a table of another grid has, only a square tells; where two fit, it stays as it is, and is refused.
    left = [table.shape[1] - cut for cut in (0, first, first + count)]
    squares = [n > 0 and math.isqrt(n) ** 2 == n for n in left]
    if table.shape[1] == rows + count or (
        table.shape[1] not in (rows, rows - first) and squares == [False, False, True]
    ):
        state[REGISTERS] = found + table[:, first : first + count]
        state['pos_embed'] = torch.cat((table[:, :first], table[:, first + count :]), dim=1)
        moved[REGISTERS] = f'{moved.get(REGISTERS, "")} with the positions added that they had'.strip()
    return moved


def convert(
    module: nn.Module,
    own: Mapping[str, Tensor],
    state: Mapping[str, Tensor],
    rename: Mapping[str, str] | None = None,
    resample: bool = False,
) -> tuple[dict[str, Tensor], dict[str, str], dict[str, str]]:
    """Rename, expand, resize; what needs nothing stays as it is, and what no rule covers is left for the caller.

    Args:
        module: the backbone, for the windows that its tables belong to.
        own: its state dict.
        state: the file's tensors under the backbone's names.
        rename: start of a name in the file -> in the backbone, as ``{'ln1.': 'ln2.'}``.
        resample: resample a patch embedding of another patch size.

    Returns:
        the tensors, {name: what was done} where only the place changed, and the same where the shape did.
    """
    state, moved, resized = dict(state), {}, {}
    for old, new in (rename or {}).items():
        for name in [n for n in state if n.startswith(old)]:
            moved[new + name[len(old) :]] = f'from {name}'
            state[new + name[len(old) :]] = state.pop(name)
    if REGISTERS in own:
        moved.update(_place_registers(state, own[REGISTERS].shape[1], own['pos_embed'].shape[1]))
    tables = [n for n in own if n.endswith(TABLE) and n not in state]
    if SHARED in state and SHARED not in own and tables:
        shared = state.pop(SHARED)
        state.pop(SHARED.replace('bias_table', 'index'), None)
        state.update({name: shared for name in tables})
        moved.update({name: 'copy of the table that all blocks shared' for name in tables})
    for name, target in own.items():
        value = state.get(name)
        if value is None or value.shape == target.shape:
            continue
        fitted = None
        if name.endswith(TABLE):
            fitted = _fit_table(value, target, module.get_submodule(name.rpartition('.')[0]))
        elif resample and name == PATCH_WEIGHT and value.shape[:2] == target.shape[:2]:
            fitted = resample_patches(value, tuple(target.shape[-2:]))
        if fitted is not None and fitted.shape == target.shape:
            state[name] = fitted
            change = f'{tuple(value.shape)} -> {tuple(target.shape)}'
            resized[name] = f'{change}, {moved.pop(name)}' if name in moved else change
    return state, moved, resized


def is_relative(names) -> bool:
    """Whether a file's encoder knows positions by tables of relative ones only."""
    return any(re.search(rf'(^|\.){TABLE}$', n) for n in names) and 'pos_embed' not in names
