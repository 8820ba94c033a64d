"""Load a pretrained encoder into a backbone, and say exactly what was loaded.

Nothing is skipped in silence. A tensor of the file that finds no place stops the run unless it is known to be no part
of the encoder (heads, decoders, mask tokens ...), and so does a parameter that the file does not fill, unless no
pretraining checkpoint holds it: those are listed and do not count against the minimum.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mim_mm.checkpoint.convert import REGISTERS, TABLE, convert, is_relative
from mim_mm.checkpoint.function import differences
from mim_mm.checkpoint.keymap import select_backbone
from mim_mm.checkpoint.leftovers import (
    DERIVED_BUFFERS,
    MAP_NORM,
    POOLED_NORM,
    advice,
    extra_tokens,
    some,
    sort_left_over,
)
from mim_mm.checkpoint.read import LoadError, Weights, read_checkpoint, read_weights, resolve_checkpoint
from mim_mm.checkpoint.report import LoadReport

__all__ = [
    'LoadError',
    'LoadReport',
    'fill_encoder',
    'load_encoder',
    'read_checkpoint',
    'resize_positions',
    'resolve_checkpoint',
]

# At this minimum, the default, and above every parameter must be filled; a lower one says that a part is meant.
WHOLE = 0.95
LAYER_SCALE = re.compile(r'(^|\.)gamma_?[12](\.weight)?$')
_FINAL_NORM = 'final norm, absent from a pretraining without it'
# (pattern, why a pretraining checkpoint legitimately lacks it). Only keys that the file lacks are judged by it.
BY_DESIGN = (
    (re.compile(r'(^|\.)rel_pos_[hw]$'), 'relative positions of the detector, start at zero'),
    (re.compile(r'(^|\.)(rel_pos_\w+\.)?relative_position_bias_table$'), 'relative positions, start at zero'),
    (re.compile(r'^mask_token$'), 'mask token, used by pretraining only'),
    (re.compile(r'^ln2\.(weight|bias)$'), 'norm after average pooling, trained by fine-tuning'),
    (re.compile(r'^ln1\.(weight|bias)$'), _FINAL_NORM),
    (re.compile(r'^fc_norm\.(weight|bias)$'), 'norm after average pooling, trained by fine-tuning'),
)


def resize_positions(
    table: Tensor, target: Tensor, grid: tuple[int, int], mode: str = 'bicubic', bare_class: bool = False
) -> Tensor:
    """Position table of another grid -> the shape of ``target``.

    Args:
        table: (1, e + h*w, C) with a square grid, or one of the proportions of ``grid``, e = 0, 1 or as in ``target``;
            or (1, h, w, C).
        target: the model's own table, (1, e + H*W, C), e leading rows for a class token and its like.
        grid: (H, W) of the model.
        mode: interpolation; without antialiasing and with half-pixel centres, as MAE and mmpretrain do.
        bare_class: the file has a class token; where the table has no row for it, none was added to it: zero.

    Returns:
        The class row as stored (if the table has none: zero or the model's own, see ``bare_class``; dropped if
        the model has none), and the resized grid.

    Raises:
        LoadError: The widths differ, or the rows are neither a square grid nor a square grid and a class token: rows of
            register or distillation tokens are never cut.
    """
    keep = target.shape[1] - math.prod(grid)
    if table.shape[-1] != target.shape[-1] or keep < 0:
        raise LoadError(
            f'pos_embed {tuple(table.shape)} does not fit {tuple(target.shape)}: the models differ in width.'
        )
    if table.ndim == 4:
        source, first = tuple(table.shape[1:3]), None
        patches = table.flatten(1, 2)
    else:
        rows = table.shape[1]
        square = [e for e in (0, 1, keep) if rows > e and math.isqrt(rows - e) ** 2 == rows - e]
        extra = square[0] if square else None
        if rows == target.shape[1]:
            source, extra = tuple(grid), keep
        elif extra is not None and (extra == keep or keep < 2):
            source = (math.isqrt(rows - extra),) * 2
            like = _same_proportions(rows, grid, keep)
            if like and like[0] != source:
                raise LoadError(
                    f'pos_embed has {rows} rows, of {source[0]} x {source[1]} patches or, in the proportions of the '
                    f'model, of {like[0][0]} x {like[0][1]}: store it as (1, h, w, C), which says which.'
                )
        elif extra is None and (found := _same_proportions(rows, grid, keep)):
            source, extra = found
        else:
            raise LoadError(
                f'pos_embed has {rows} rows, neither a square grid nor a square grid and a class token (are some of '
                f'register or distillation tokens?): store it as (1, h, w, C).'
            )
        first, patches = (table[:, :extra] if extra else None), table[:, extra:]
    if source != tuple(grid):
        maps = patches.float().unflatten(1, source).permute(0, 3, 1, 2)
        options = {} if mode == 'nearest' else {'align_corners': False}
        patches = F.interpolate(maps, size=tuple(grid), mode=mode, **options).flatten(2).transpose(1, 2)
    if not keep:
        return patches
    if first is None:
        first = target[:, :keep].detach()
        first = torch.zeros_like(first) if bare_class else first
    return torch.cat((first.to(patches), patches), dim=1)


def _same_proportions(rows: int, grid: tuple[int, int], keep: int) -> tuple[tuple[int, int], int] | None:
    """The grid with the proportions of ``grid`` that ``rows`` are, behind ``keep`` or one row; None: there is none."""
    step = math.gcd(*grid)
    for extra in dict.fromkeys((keep, min(keep, 1))):
        times = math.isqrt(max(rows - extra, 0) * step**2 // math.prod(grid))
        source = tuple(times * side // step for side in grid)
        if times and math.prod(source) == rows - extra:
            return source, extra
    return None


def load_encoder(
    module: nn.Module,
    checkpoint: str | os.PathLike,
    prefix: str = 'backbone.',
    min_loaded: float = WHOLE,
    skip: Sequence[str] = (),
    trust: bool = False,
    rename: Mapping[str, str] | None = None,
    resample_patches: bool = False,
    entry: str | None = None,
    cut_depth: bool = False,
    grid: tuple[int, int] | None = None,
) -> LoadReport:
    """Copy the encoder of a checkpoint into ``module``: the one way for recipes, tools, probes and detectors.

    Args:
        module: a backbone: mmpretrain's ``VisionTransformer``, ``BEiTViT``, ``SwinTransformer``, ``HiViT``,
            or ``WindowedViT``. Tables of relative positions are resized, and copied to each block where the file has
            one for all.
        checkpoint (path): A file, or a work dir (its last checkpoint).
        prefix: where the encoder lies in the file; other known places are tried if nothing fits there.
        min_loaded: least part of the parameters, in values, that must be filled; see ``LoadReport.fraction``.
            At 0.95 and above every parameter must be filled, or be named in ``skip``.
        skip: regular expressions of names that are left out on purpose: parameters of the model stay at
            their start and count as random, tensors of the file are not used.
        trust: read a file that holds other classes than tensors and plain types.
        rename: start of a name in the file -> in the backbone: CAE's ``{'ln1.': 'ln2.'}``.
        resample_patches: resample a patch embedding of another patch size (ViTDet-H: 14 px -> 16 px).
        entry: which model of a file with several: ``'model_ema'``, ``'student'``.
        cut_depth: take the first blocks of a deeper encoder (BootMAE's probe).
        grid: rows and columns of the module's position table, as :func:`mim_mm.encoders.grid_of` knows them; by
            default its ``patch_resolution``, which HiViT has under another name.

    Returns:
        LoadReport: what was loaded. The module is changed only if no error is raised.

    Raises:
        LoadError: No file, no such entry, no backbone keys, a shape that does not fit, values that are not finite, a
            tensor of the encoder without a place in the model or the reverse, less than ``min_loaded``, or a file that
            says that its encoder is another function (:mod:`mim_mm.checkpoint.function`).
    """
    path = resolve_checkpoint(checkpoint)
    weights = read_weights(path, trust, entry)
    return fill_encoder(
        module, weights, path, prefix, min_loaded, skip, rename, resample_patches, cut_depth=cut_depth, grid=grid
    )


def fill_encoder(
    module: nn.Module,
    weights: Weights,
    path: Path,
    prefix: str = 'backbone.',
    min_loaded: float = WHOLE,
    skip: Sequence[str] = (),
    rename: Mapping[str, str] | None = None,
    resample_patches: bool = False,
    cut_depth: bool = False,
    grid: tuple[int, int] | None = None,
) -> LoadReport:
    """:func:`load_encoder` for weights that are read already; ``path`` is for messages."""
    other = differences(weights.about, module)
    if other:
        raise LoadError(f'{path} holds another function than this model: {"; ".join(other)}.')
    own = module.state_dict()
    parameters = {name: p for name, p in module.named_parameters()}
    try:
        state, found, others, copies = select_backbone(weights.tensors, own, prefix, str(path))
    except ValueError as error:
        raise LoadError(' '.join([str(error), *weights.notes])) from error
    report = LoadReport(str(path), found, min_loaded, sizes={n: p.numel() for n, p in parameters.items()})
    report.entry, report.notes = weights.entry, list(weights.notes)
    if copies:
        names = ' and '.join(map(repr, copies))
        report.notes.append(f'The encoder under {found!r} was taken; the file has as much under {names} (prefix).')
    state, moved, resized = convert(module, own, state, rename, resample_patches)
    left = sorted(k for k in state if k not in own)
    report.unused = others + left
    report.kinds, unplaced = sort_left_over(others, left, own.keys(), state.keys(), found, copies, skip, cut_depth)
    skipped = {n for n in own if any(re.search(pattern, n) for pattern in skip)}
    taken = parameters.keys() - skipped
    report.moved = {n: source for n, source in moved.items() if n in taken}
    report.resized = {n: change for n, change in resized.items() if n in taken}
    wanted = {k: v for k, v in own.items() if k not in skipped}
    grid = grid or getattr(module, 'patch_resolution', None)
    accepted, mismatched = _match(module, wanted, state, report, grid)
    report.random = [n for n in parameters if n not in accepted and n not in report.by_design]
    # A detector reads maps that the pretraining did not put out, and normalises them anew (Swin, ConvNeXt).
    new_norms = MAP_NORM if any(MAP_NORM.match(n) for n in state) else DERIVED_BUFFERS
    explained = accepted.keys() | set(report.by_design)
    unfilled = [n for n in wanted if not (n in explained or DERIVED_BUFFERS.search(n) or new_norms.match(n))]
    missing = [n for n in unfilled if n not in mismatched]
    hints = advice([*unplaced, *_packed(state, mismatched)], missing, state.keys(), own.keys())
    not_finite = [k for k, v in accepted.items() if not torch.isfinite(v).all()]
    _refuse(report, path, mismatched, not_finite, unplaced, unfilled, hints)
    module.load_state_dict(accepted, strict=False)
    return report


def _packed(state: Mapping[str, Tensor], mismatched: Mapping[str, str]) -> list[str]:
    """Names as of a SwiGLU for MLPs whose second layer takes half of what the first gives (timm's packed form)."""
    found = []
    for name in mismatched:
        stem, is_mlp, _ = name.partition('.ffn.layers.')
        first, second = (state.get(f'{stem}.ffn.layers.{n}.weight') for n in ('0.0', '1'))
        if is_mlp and first is not None and second is not None and len(first) == 2 * second.shape[1]:
            found.append(f'{stem}.ffn.w12.weight')
    return found


def _match(
    module: nn.Module, own: dict, state: dict, report: LoadReport, grid: tuple[int, int] | None
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Sort the file's tensors into ``report``; return those that can be copied, and why others cannot."""
    accepted: dict[str, Tensor] = {}
    mismatched: dict[str, str] = {}
    pooled = any(POOLED_NORM.match(name) for name in state)
    other_tables = any(name.endswith(TABLE) and name not in own for name in state)
    for name, target in own.items():
        is_parameter = name in report.sizes
        if name not in state:
            reason = next((why for pattern, why in BY_DESIGN if pattern.search(name)), None)
            if is_parameter and LAYER_SCALE.search(name) and bool((target == 1).all()):
                reason = 'layer scale, starts at one and changes nothing'
            if is_parameter and name == 'pos_embed' and is_relative(state):
                reason = 'absolute positions, which this pretraining lacks, start at zero'
            if reason == _FINAL_NORM and pooled:
                reason = None  # the file normalises after pooling instead: another encoder, not one without a norm
            if other_tables and reason and reason.startswith('relative'):
                reason = None  # the file has relative positions, in a form that does not fit
            if is_parameter and reason:
                report.by_design[name] = reason
                if 'start at zero' in reason:  # mmpretrain draws them at random
                    accepted[name] = torch.zeros_like(target)
            continue
        if DERIVED_BUFFERS.search(name):
            continue
        source = state[name]
        if name == 'pos_embed' and grid:
            try:
                accepted[name] = _positions(module, source, target, state, grid)
            except LoadError as error:
                mismatched[name] = str(error)
            else:
                if source.shape != target.shape:
                    report.resized[name] = f'{tuple(source.shape)} -> {tuple(target.shape)}'
        elif source.shape != target.shape:
            mismatched[name] = f'{name}: file {tuple(source.shape)}, model {tuple(target.shape)}'
        else:
            accepted[name] = source
        if is_parameter and name in accepted and name not in report.resized and name not in report.moved:
            report.loaded.append(name)
    return accepted, mismatched


def _positions(
    module: nn.Module, source: Tensor, target: Tensor, state: Mapping[str, Tensor], grid: tuple[int, int]
) -> Tensor:
    """The file's position table in the shape of ``target``; LoadError where rows would be cut."""
    has = module.state_dict().keys()
    # Of the model's own grid, with or without class token: convert() has taken the rows of registers away.
    placed = REGISTERS in has and source.ndim == 3 and source.shape[1] in (target.shape[1], math.prod(grid))
    extra = extra_tokens(state) if not placed and 'dist_token' not in has else 0
    if extra and source.ndim == 3:
        left = [source.shape[1] - extra - c for c in (0, 1)]
        if any(n > 0 and math.isqrt(n) ** 2 == n for n in left):
            raise LoadError(
                f'pos_embed: file {tuple(source.shape)}, model {tuple(target.shape)}; rows of register or distillation '
                f'tokens in the file: {extra}, and they are not cut'
            )
    if source.shape == target.shape:
        return source
    mode = getattr(module, 'interpolate_mode', 'bicubic')
    return resize_positions(source, target, grid, mode, bare_class='cls_token' in state)


def _refuse(
    report: LoadReport,
    path: Path,
    mismatched: Mapping[str, str],
    not_finite: list[str],
    unplaced: list[str],
    unfilled: list[str],
    hints: list[str],
) -> None:
    """LoadError with everything that is wrong, what to set first."""
    problems = []
    if mismatched:
        rows = list(mismatched.values())
        listed = '\n  '.join([*rows[:8], *([f'and {len(rows) - 8} more'] if rows[8:] else [])])
        problems.append(
            f'{len(mismatched)} tensors have another shape than the model; shapes must be equal (only pos_embed and '
            f'tables of relative positions are resized). Use the architecture and patch size of the pretraining (or '
            f'resample_patches=True), or name what to leave random in skip=[...].\n  {listed}'
        )
    if not_finite:
        problems.append(f'the file holds values that are not finite in {not_finite}: use an earlier checkpoint.')
    if unplaced:
        problems.append(
            f'{len(unplaced)} tensors of the file find no place in the model, so it would compute something else: '
            f'{some(unplaced)}. Only known heads, decoders, mask tokens and their like may be left over; name in '
            f'skip=[...] (custom_hooks.0.skip, --skip) what is left out on purpose.'
        )
    if report.fraction < report.min_loaded and not mismatched:
        problems.append(
            f'the file fills {100 * report.fraction:.2f} % of the backbone, at least {100 * report.min_loaded:g} % are '
            f'required: give the checkpoint of this architecture, or lower min_loaded. Without a value: '
            f'{some(report.random)}.'
        )
    elif unfilled and report.min_loaded >= WHOLE and not mismatched:
        plural = '' if len(unfilled) == 1 else 's'
        problems.append(
            f'the file leaves {len(unfilled)} parameter{plural} of the model at their start: {some(unfilled)}. Name '
            f'in skip=[...] what is meant to stay, or set min_loaded below {WHOLE:g} for a part of an encoder.'
        )
    if problems:
        told = ' '.join(report.notes)
        fixes = ''.join(f'\n-> {hint}.' for hint in hints)
        told = f'{told} ' if told else ''
        raise LoadError(f'{path}: {told}' + '\nand '.join(problems) + fixes)
