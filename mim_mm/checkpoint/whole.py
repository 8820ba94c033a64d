"""A checkpoint of a whole model: all that is measured must come from it, and most of what a training starts from."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from torch import Tensor, nn

from mim_mm.checkpoint.leftovers import DERIVED_BUFFERS, some
from mim_mm.checkpoint.read import LoadError
from mim_mm.checkpoint.report import LoadReport

__all__ = ['check_floor', 'check_whole', 'report_of']


def check_whole(module: nn.Module, state: Mapping[str, Tensor], checkpoint: str) -> None:
    """LoadError unless every parameter of a whole model is in ``state`` in its shape, and nothing else is.

    Args:
        module: the model, not wrapped; its weights are changed.
        state: all tensors of the checkpoint.
        checkpoint: the file, for messages.
    """
    state = {re.sub(r'^module\.', '', name): value for name, value in state.items()}  # as mmengine reads it
    try:
        result = module.load_state_dict(state, strict=False)
    except RuntimeError as error:
        raise LoadError(
            f'{checkpoint} is not of this model: {str(error).strip()}\nGive the config that it was trained with '
            f'(the number of classes: model.head.num_classes, model.roi_head.*.num_classes).'
        ) from error
    parts = []
    for what, names in (('model are not in it', result.missing_keys), ('file have no place', result.unexpected_keys)):
        names = [n for n in names if not DERIVED_BUFFERS.search(n)]
        if names:
            parts.append(f'{len(names)} tensors of the {what}: {some(names)}')
    if parts:
        raise LoadError(
            f'{checkpoint} is not of this model: {"; ".join(parts)}. A measurement needs all of them: give the config '
            f'that it was trained with. A pretraining has no head yet: train one from it (tools/train.py RECIPE '
            f'--cfg-options init=CKPT), or use tools/knn.py.'
        )


def report_of(own: Mapping, state: Mapping[str, Tensor], checkpoint: str, min_loaded: float) -> LoadReport:
    """What mmengine fills of a model with a checkpoint: tensors of the same name and shape.

    Args:
        own: the model's tensors, or their (shape, type), by name.
        state: all tensors of the checkpoint.
        checkpoint: the file, for messages.
        min_loaded: least part of the model's values that must be filled, see :func:`check_floor`.
    """
    state = {re.sub(r'^module\.', '', name): value for name, value in state.items() if isinstance(value, Tensor)}
    shapes = {
        name: tuple(value.shape if isinstance(value, Tensor) else value[0])
        for name, value in own.items()
        if not DERIVED_BUFFERS.search(name)
    }
    report = LoadReport(checkpoint, '', min_loaded, {name: math.prod(shape) for name, shape in shapes.items()})
    report.what = 'model'
    for name, shape in shapes.items():
        fits = name in state and tuple(state[name].shape) == shape
        (report.loaded if fits else report.random).append(name)
        if name in state and not fits:
            report.notes.append(f'{name} has another shape: file {tuple(state[name].shape)}, model {shape}.')
    report.unused = sorted(name for name in state if name not in own)
    report.kinds = dict.fromkeys(report.unused, 'no tensor of this model has this name')
    return report


def check_floor(report: LoadReport, what: str) -> None:
    """LoadError where less of a model was filled than ``min_loaded``; ``what`` says who asked for the weights."""
    if report.fraction < report.min_loaded:
        raise LoadError(
            f'{what}: {report.checkpoint} fills {100 * report.fraction:.2f} % of the model, at least '
            f'{100 * report.min_loaded:g} % are required, or it trains from random weights. Without a value: '
            f'{some(report.random)}. Not used of the file: {some(report.unused) if report.unused else "nothing"}. Give '
            'the checkpoint of this model (for an encoder alone: init=CKPT of a downstream recipe), or take a part on '
            'purpose: --cfg-options min_loaded=0.5'
        )
