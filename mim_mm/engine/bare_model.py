"""What is inside of wrappers: the model of a runner, the data sets of a loader."""

from __future__ import annotations

from mmengine.model import is_model_wrapper
from torch import nn


def bare_model(runner) -> nn.Module:
    """``runner.model`` without DDP or another wrapper of mmengine's registry around it."""
    return runner.model.module if is_model_wrapper(runner.model) else runner.model


def bare_datasets(dataset) -> list:
    """The data sets inside wrappers such as ``ConcatDataset``, or the one there is."""
    inner = getattr(dataset, 'datasets', None) or ([dataset.dataset] if hasattr(dataset, 'dataset') else [])
    return [bare for part in inner for bare in bare_datasets(part)] if inner else [dataset]
