"""Whether what a checkpoint holds is finite, and the newest of a run that is sound."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mim_mm.checkpoint.atomic import checkpoints_of
from mim_mm.checkpoint.checksum import damage
from mim_mm.checkpoint.read import LoadError, read_content

__all__ = ['MAY_DIVERGE', 'newest_finite', 'not_finite', 'not_finite_in_file']

# In a checkpoint's meta: beginnings of names of parts trained independently, some of which may have diverged.
MAY_DIVERGE = 'may_diverge'


def not_finite(tensors: Mapping[str, Tensor], may_diverge: Sequence[str] = ()) -> list[str]:
    """Names of floating-point tensors with a value that is not finite; waits for each device once.

    Args:
        tensors: by name, on any device.
        may_diverge: of names that begin so, all of them must be bad to be named.
    """
    floating = {name: value for name, value in tensors.items() if value.is_floating_point() or value.is_complex()}
    by_device: dict[torch.device, list[str]] = {}
    for name, value in floating.items():
        by_device.setdefault(value.device, []).append(name)
    bad = []
    for names in by_device.values():
        # Asked as "is one bad", so that a device that computes nothing and answers 0 (tests/gpu_standin) says no.
        flags = torch.stack([floating[name].detach().isfinite().logical_not_().any() for name in names])
        if flags.any():
            bad += [name for name, flag in zip(names, flags.tolist()) if flag]
    free = tuple(may_diverge)
    if free and not all(name in bad for name in floating if name.startswith(free)):
        bad = [name for name in bad if not name.startswith(free)]
    return bad


def not_finite_in_file(path: str | Path) -> list[str]:
    """Names of the tensors of a checkpoint file that are not finite: weights, averages, optimizer state.

    Raises:
        LoadError: it cannot be read.
    """
    content = read_content(path, mmap=True, verify=False)
    free = (content.get('meta') or {}).get(MAY_DIVERGE) or ()
    parts = [key for key in ('state_dict', 'ema_state_dict') if isinstance(content.get(key), Mapping)]
    bad = [name for key in parts for name in not_finite(dict(_tensors(content[key])), free)]
    return bad if free else bad + not_finite(dict(_tensors(content.get('optimizer') or {}, 'optimizer.')))


def newest_finite(work_dir: str | Path, out_dir: str | Path | None = None) -> tuple[Path | None, list[str]]:
    """The newest checkpoint of a run that is as it was written and whose tensors are finite, and a sentence on each
    newer one that is not.

    Args:
        work_dir, out_dir: see :func:`mim_mm.checkpoint.atomic.checkpoints_of`, which has the order.
    """
    refused = []
    for path in checkpoints_of(work_dir, out_dir):
        why = _why_not(path)
        if why is None:
            return path, refused
        refused.append(f'{path} {why}')
    return None, refused


def _why_not(path: Path) -> str | None:
    try:
        found = damage(path)
        bad = [] if found else not_finite_in_file(path)
    except OSError as error:
        return f'cannot be read ({error})'
    except LoadError as error:
        return f'is no checkpoint to go on from: {error}'
    if found:
        return f'is damaged: {found}'
    return f'is not finite: {", ".join(bad[:3])}' if bad else None


def _tensors(value: Any, name: str = '') -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        yield name, value
    elif isinstance(value, Mapping):
        for key, part in value.items():
            yield from _tensors(part, f'{name}.{key}' if name and not name.endswith('.') else f'{name}{key}')
    elif isinstance(value, (list, tuple)):
        for i, part in enumerate(value):
            yield from _tensors(part, f'{name}.{i}')
