"""Whether every tensor of a checkpoint fits the model, the averages and the optimizer of the run that resumes from it.

mmengine skips weights of another shape with a warning, and torch puts an optimizer state of any shape beside its
parameter: a fused optimizer then reads past its end. So all of it is compared before anything is filled.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mim_mm.checkpoint.leftovers import DERIVED_BUFFERS
from mim_mm.engine.stop.exact_resume import ResumeError

SHOWN = 5
OPTIMIZER = 'optimizer'  # what --allow-change calls a state that is left behind


def tensor_kinds(module: nn.Module) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
    """``{name: (shape, type)}`` of a module's parameters and buffers, as its ``state_dict`` names them."""
    return {name: (tuple(value.shape), value.dtype) for name, value in module.state_dict().items() if _is(value)}


def _is(value: Any) -> bool:
    return isinstance(value, Tensor)


def weight_problems(own: Mapping[str, tuple], state: Mapping[str, Any], what: str) -> list[str]:
    """Where a state differs from a model in names, shapes or types, in words; buffers that follow from others aside."""
    state = {re.sub(r'^module\.', '', name): value for name, value in state.items() if _is(value)}
    missing = [name for name in own if name not in state and not DERIVED_BUFFERS.search(name)]
    unknown = [name for name in state if name not in own and not DERIVED_BUFFERS.search(name)]
    others = [
        f'{name} {tuple(value.shape)} {_kind(value.dtype)} -> {own[name][0]} {_kind(own[name][1])}'
        for name, value in state.items()
        if name in own and (tuple(value.shape), value.dtype) != own[name]
    ]
    parts = [('of another shape or type', others), ('missing', missing), ('without a place in this model', unknown)]
    return [f'{what}: {len(names)} tensors {words}: {_some(names)}' for words, names in parts if names]


def optimizer_problems(
    optimizer: torch.optim.Optimizer, state: Mapping[str, Any], names: Mapping[int, str], stored: Sequence | None
) -> list[str]:
    """Where an optimizer's state does not fit: groups, their members, the shape of each moment.

    Args:
        optimizer: of this run.
        state: of the checkpoint, ``state_dict`` of the optimizer.
        names: parameter by ``id``.
        stored: names of the parameters of each group, as the checkpoint has them; None where it does not say.
    """
    groups, saved = optimizer.param_groups, state.get('param_groups') or []
    sizes, theirs = ([len(group['params']) for group in side] for side in (groups, saved))
    if sizes != theirs:
        return [f'optimizer: {_groups(theirs)} in the checkpoint, {_groups(sizes)} here']
    own = [[names.get(id(parameter), '?') for parameter in group['params']] for group in groups]
    if stored is not None and own != [list(group) for group in stored]:
        moved = [f'{a} -> {b}' for old, new in zip(stored, own) for a, b in zip(old, new) if a != b]
        return [f'optimizer: other parameters in its groups: {_some(moved)}']
    problems = []
    for group, before in zip(groups, saved, strict=True):
        for parameter, index in zip(group['params'], before['params'], strict=True):
            for key, value in (state.get('state') or {}).get(index, {}).items():
                # Counters have no dimension; factored moments have fewer than the parameter.
                if _is(value) and value.ndim and value.ndim == parameter.ndim and value.shape != parameter.shape:
                    name = names.get(id(parameter), str(index))
                    problems.append(f'{key} of {name} {tuple(value.shape)} -> {tuple(parameter.shape)}')
    return [f'optimizer: {len(problems)} moments of another shape: {_some(problems)}'] if problems else []


def group_names(optimizer: torch.optim.Optimizer, names: Mapping[int, str]) -> list[list[str]]:
    """Names of the parameters of each group, for the checkpoint."""
    return [[names.get(id(parameter), '?') for parameter in group['params']] for group in optimizer.param_groups]


def problems_of(
    checkpoint: Mapping[str, Any],
    own: Mapping[str, tuple],
    averages: bool,
    optimizers: Mapping[str, torch.optim.Optimizer],
    names: Mapping[int, str],
    groups: Mapping[str, Sequence],
    new_optimizer: bool,
) -> list[str]:
    """Whatever of a checkpoint does not fit a run, in words.

    Args:
        own: of the model, see :func:`tensor_kinds`.
        averages: whether the run keeps averaged weights (EMA).
        optimizers: by name, a single one under the empty name; none where something else compares them.
        names, groups: see :func:`optimizer_problems`; ``groups`` by the name of the optimizer.
        new_optimizer: a checkpoint without a state of the optimizer is taken.
    """
    problems = weight_problems(own, checkpoint.get('state_dict') or {}, 'model')
    if averages:
        averaged = {key: value for key, value in (checkpoint.get('ema_state_dict') or {}).items() if key != 'steps'}
        problems += weight_problems(own, averaged, 'averages (EMA)')
    saved = checkpoint.get('optimizer')
    if not saved:
        word = 'it holds no optimizer state, as a best_*.pth does (--allow-change optimizer starts with a new one)'
        return problems + ([] if new_optimizer else [word])
    for part, optimizer in optimizers.items():
        theirs = saved.get(part, {}) if part else saved
        problems += optimizer_problems(optimizer, theirs, names, groups.get(part))
    return problems


def refuse(problems: Sequence[str], name: str) -> None:
    """Raise ResumeError with whatever does not fit."""
    if problems:
        raise ResumeError(
            f'--resume: {name} is not of this model: {"; ".join(problems)}. Resume with the settings that it was '
            'trained with, or start a new run from its weights: --cfg-options load_from=CKPT, without --resume'
        )


def _kind(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix('torch.')


def _groups(sizes: Sequence[int]) -> str:
    return f'{len(sizes)} groups of {sum(sizes)} parameters ({_some([str(size) for size in sizes])})'


def _some(names: Sequence[str]) -> str:
    more = f' and {len(names) - SHOWN} more' if len(names) > SHOWN else ''
    return ', '.join(names[:SHOWN]) + more
