"""The model inside a distributed wrapper."""

from __future__ import annotations

from mmengine.model import is_model_wrapper
from torch import nn


def bare_model(runner) -> nn.Module:
    """``runner.model`` without DDP or another wrapper of mmengine's registry around it."""
    return runner.model.module if is_model_wrapper(runner.model) else runner.model
