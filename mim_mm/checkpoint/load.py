"""Load a pretrained encoder into a backbone, and say exactly what was loaded.

Nothing is skipped in silence: a key that is missing, left over or of another shape ends up in the report or stops the
run. Relative position tables and the norm after average pooling cannot be in a pretraining checkpoint; they are listed
as such and do not count against the minimum.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mim_mm.checkpoint.atomic import write_atomically
from mim_mm.checkpoint.convert import convert, is_relative
from mim_mm.checkpoint.keymap import select_backbone
from mim_mm.checkpoint.read import LoadError, read_checkpoint, resolve_checkpoint

__all__ = ['LoadError', 'LoadReport', 'load_encoder', 'read_checkpoint', 'resize_positions', 'resolve_checkpoint']

# (pattern, why a pretraining checkpoint legitimately lacks it). Only keys that the file lacks are judged by it.
BY_DESIGN = (
    (re.compile(r'(^|\.)rel_pos_[hw]$'), 'relative positions of the detector, start at zero'),
    (re.compile(r'(^|\.)(rel_pos_\w+\.)?relative_position_bias_table$'), 'relative positions, start at zero'),
    (re.compile(r'^ln2\.(weight|bias)$'), 'norm after average pooling, trained by fine-tuning'),
    (re.compile(r'^ln1\.(weight|bias)$'), 'final norm, absent from a pretraining without it'),
    (re.compile(r'^fc_norm\.(weight|bias)$'), 'norm after average pooling, trained by fine-tuning'),
)
# Buffers computed from the architecture; a stored one may belong to another size and is never loaded.
DERIVED_BUFFERS = re.compile(r'(^|\.)relative_position_index$')


@dataclass
class LoadReport:
    """What became of each parameter of a backbone; counts are numbers of values, not of tensors."""

    checkpoint: str
    prefix: str
    min_loaded: float
    sizes: dict[str, int] = field(default_factory=dict)  # parameter -> number of values
    loaded: list[str] = field(default_factory=list)
    resized: dict[str, str] = field(default_factory=dict)  # parameter -> "(1, 197, 768) -> (1, 4096, 768)"
    moved: dict[str, str] = field(default_factory=dict)  # parameter -> where it was taken from, unchanged
    by_design: dict[str, str] = field(default_factory=dict)  # parameter -> reason
    random: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)  # keys of the file

    def values(self, names) -> int:
        return sum(self.sizes[n] for n in names)

    @property
    def fraction(self) -> float:
        """(loaded + resized + moved) / (all parameters - those left at their start by design), counted in values."""
        expected = self.values(self.sizes) - self.values(self.by_design)
        filled = sum(self.values(names) for names in (self.loaded, self.resized, self.moved))
        return filled / expected if expected else 0.0

    def as_dict(self) -> dict:
        """Plain types for JSON, with the counts and the fraction beside the lists."""
        kinds = ('loaded', 'resized', 'moved', 'by_design', 'random')
        counts = {name: self.values(getattr(self, name)) for name in kinds}
        counts['total'] = self.values(self.sizes)
        return {'schema': 1, 'fraction': self.fraction, 'values': counts, **asdict(self)}

    def table(self) -> str:
        """The report as text: counts and per cent of the backbone, then every name that was not simply loaded."""
        total = max(self.values(self.sizes), 1)
        lines = [
            f'Encoder from {self.checkpoint} (prefix {self.prefix!r})',
            f'{"":<24}{"tensors":>8}{"values":>14}{"of backbone":>13}',
        ]
        rows = (
            ('loaded', 'loaded'),
            ('resized', 'resized'),
            ('moved', 'taken from another place'),
            ('by_design', 'left at start by design'),
            ('random', 'left random'),
        )
        for attribute, label in rows:
            names = getattr(self, attribute)
            if attribute == 'moved' and not names:
                continue
            values = self.values(names)
            lines.append(f'{label:<24}{len(names):>8}{values:>14,}{100 * values / total:>12.2f}%')
        lines.append(
            f'{100 * self.fraction:.2f} % of what a pretraining checkpoint can hold was loaded '
            f'(minimum {100 * self.min_loaded:g} %).'
        )
        lines += [f'  resized   {name}  {change}' for name, change in self.resized.items()]
        lines += [f'  moved     {name}  ({source})' for name, source in self.moved.items()]
        lines += [f'  by design {name}  ({reason})' for name, reason in self.by_design.items()]
        lines += [f'  random    {name}' for name in self.random]
        lines += [f'  unused    {name}' for name in self.unused]
        return '\n'.join(lines)

    def save(self, directory: str | os.PathLike) -> None:
        """Write ``load_report.json`` and ``load_report.txt``; each appears whole or not at all."""
        folder = Path(directory)
        write_atomically(folder / 'load_report.json', json.dumps(self.as_dict(), indent=1).encode())
        write_atomically(folder / 'load_report.txt', f'{self.table()}\n'.encode())


def resize_positions(table: Tensor, target: Tensor, grid: tuple[int, int], mode: str = 'bicubic') -> Tensor:
    """Position table of another grid -> the shape of ``target``.

    Args:
        table (Tensor): (1, 1 + h*w, C), (1, h*w, C) with a square grid, or (1, h, w, C).
        target (Tensor): The model's own table, (1, e + H*W, C), e = 0 or 1 leading rows for a class token.
        grid (tuple): (H, W) of the model.
        mode (str): Interpolation; without antialiasing and with half-pixel centres, as MAE and mmpretrain do.

    Returns:
        Tensor: The class row as stored (the model's own if the table has none, dropped if the model has none), and
        the resized grid.

    Raises:
        LoadError: The widths differ, or the rows are neither a square grid nor a square grid and a class token.
    """
    if table.shape[-1] != target.shape[-1] or target.shape[1] - math.prod(grid) not in (0, 1):
        raise LoadError(
            f'pos_embed {tuple(table.shape)} does not fit {tuple(target.shape)}: the models differ in width.'
        )
    keep = target.shape[1] - math.prod(grid)
    if table.ndim == 4:
        source, class_row = tuple(table.shape[1:3]), None
        patches = table.flatten(1, 2)
    else:
        rows = table.shape[1]
        side = math.isqrt(rows)
        extra = 0 if side * side == rows else 1
        side = math.isqrt(rows - extra)
        if rows == target.shape[1]:
            source, extra = tuple(grid), keep
        elif side * side == rows - extra:
            source = (side, side)
        else:
            raise LoadError(
                f'pos_embed has {rows} rows, neither a square grid nor a square grid and a class token: '
                f'store it as (1, h, w, C).'
            )
        class_row, patches = (table[:, :1] if extra else None), table[:, extra:]
    if source != tuple(grid):
        maps = patches.float().unflatten(1, source).permute(0, 3, 1, 2)
        options = {} if mode == 'nearest' else {'align_corners': False}
        patches = F.interpolate(maps, size=tuple(grid), mode=mode, **options).flatten(2).transpose(1, 2)
    if not keep:
        return patches
    class_row = target[:, :1].detach() if class_row is None else class_row
    return torch.cat((class_row.to(patches), patches), dim=1)


def _grid_of(module: nn.Module) -> tuple[int, int] | None:
    """Token grid (H, W) of a backbone: ``patch_resolution`` (VisionTransformer) or its patch embedding (HiViT)."""
    for owner in (module, getattr(module, 'patch_embed', None)):
        for name in ('patch_resolution', 'patches_resolution', 'init_out_size'):
            if getattr(owner, name, None) is not None:
                return tuple(getattr(owner, name))
    return None


def load_encoder(
    module: nn.Module,
    checkpoint: str | os.PathLike,
    prefix: str = 'backbone.',
    min_loaded: float = 0.95,
    skip: Sequence[str] = (),
    trust: bool = False,
    rename: Mapping[str, str] | None = None,
    resample_patches: bool = False,
) -> LoadReport:
    """Copy the encoder of a checkpoint into ``module``.

    Args:
        module (nn.Module): A backbone: mmpretrain's ``VisionTransformer``, ``BEiTViT``, ``SwinTransformer``, ``HiViT``,
            or ``WindowedViT``. Tables of relative positions are resized, and copied to each block where the file has
            one for all.
        checkpoint (path): A file, or a work dir (its last checkpoint).
        prefix (str): Where the encoder lies in the file; other known places are tried if nothing fits there.
        min_loaded (float): Least part of the parameters, in values, that must be filled; see ``LoadReport.fraction``.
        skip (sequence): Regular expressions of parameters to leave at their start on purpose. They count as random.
        trust (bool): Read a file that holds other classes than tensors and plain types.
        rename (mapping, optional): Start of a name in the file -> in the backbone: CAE's ``{'ln1.': 'ln2.'}``.
        resample_patches (bool): Resample a patch embedding of another patch size (ViTDet-H: 14 px -> 16 px).

    Returns:
        LoadReport: what was loaded. The module is changed only if no error is raised.

    Raises:
        LoadError: No file, no backbone keys, a shape that does not fit, values that are not finite, or less than
            ``min_loaded``.
    """
    path = resolve_checkpoint(checkpoint)
    own = module.state_dict()
    parameters = {name: p for name, p in module.named_parameters()}
    try:
        state, found, others = select_backbone(read_checkpoint(path, trust), own, prefix, str(path))
    except ValueError as error:
        raise LoadError(str(error)) from error
    report = LoadReport(str(path), found, min_loaded, sizes={n: p.numel() for n, p in parameters.items()})
    state, moved, resized = convert(module, own, state, rename, resample_patches)
    report.unused = others + sorted(k for k in state if k not in own)
    skipped = {n for n in own if any(re.search(pattern, n) for pattern in skip)}
    taken = parameters.keys() - skipped
    report.moved = {n: source for n, source in moved.items() if n in taken}
    report.resized = {n: change for n, change in resized.items() if n in taken}
    wanted = {k: v for k, v in own.items() if k not in skipped}
    accepted, mismatched = _match(module, wanted, state, report)
    report.random = [n for n in parameters if n not in accepted and n not in report.by_design]
    _refuse(report, path, mismatched, [k for k, v in accepted.items() if not torch.isfinite(v).all()])
    module.load_state_dict(accepted, strict=False)
    return report


def _match(module: nn.Module, own: dict, state: dict, report: LoadReport) -> tuple[dict[str, Tensor], list[str]]:
    """Sort the file's tensors into ``report``; return those that can be copied and the shapes that cannot."""
    accepted: dict[str, Tensor] = {}
    mismatched: list[str] = []
    for name, target in own.items():
        is_parameter = name in report.sizes
        if name not in state:
            reason = next((why for pattern, why in BY_DESIGN if pattern.search(name)), None)
            if is_parameter and name == 'pos_embed' and is_relative(state):
                reason = 'absolute positions, which this pretraining lacks, start at zero'
            if is_parameter and reason:
                report.by_design[name] = reason
                if 'start at zero' in reason:  # mmpretrain draws them at random
                    accepted[name] = torch.zeros_like(target)
            continue
        if DERIVED_BUFFERS.search(name):
            continue
        source = state[name]
        if source.shape != target.shape and name == 'pos_embed' and _grid_of(module):
            resized = resize_positions(source, target, _grid_of(module), getattr(module, 'interpolate_mode', 'bicubic'))
            report.resized[name] = f'{tuple(source.shape)} -> {tuple(target.shape)}'
            accepted[name] = resized
        elif source.shape != target.shape:
            mismatched.append(f'{name}: file {tuple(source.shape)}, model {tuple(target.shape)}')
        else:
            accepted[name] = source
            if is_parameter and name not in report.resized and name not in report.moved:
                report.loaded.append(name)
    return accepted, mismatched


def _refuse(report: LoadReport, path: Path, mismatched: list[str], not_finite: list[str]) -> None:
    if mismatched:
        listed = '\n  '.join(mismatched)
        raise LoadError(
            f'{path}: {len(mismatched)} tensors have another shape than the model; shapes must be equal (only '
            f'pos_embed and tables of relative positions are resized). Use the architecture and patch size of the '
            f'pretraining (or resample_patches=True), or name what to leave random in skip=[...].\n  {listed}'
        )
    if not_finite:
        raise LoadError(f'{path} holds values that are not finite in {not_finite}: use an earlier checkpoint.')
    if report.fraction < report.min_loaded:
        raise LoadError(
            f'{path} fills {100 * report.fraction:.2f} % of the backbone, at least {100 * report.min_loaded:g} % are '
            f'required: give the checkpoint of this architecture, or lower min_loaded.\n{report.table()}'
        )
