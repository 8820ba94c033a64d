"""A checkpoint of a whole model: everything that is measured with it must come from it."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor, nn

from mim_mm.checkpoint.leftovers import DERIVED_BUFFERS, some
from mim_mm.checkpoint.read import LoadError

__all__ = ['check_whole']


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
