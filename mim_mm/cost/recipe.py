"""What a config says about its training without a model: pipeline, input, precision, data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Optimizer wrappers that compute in bf16 or fp16.
AUTOCAST = ('AutocastOptimWrapper', 'AmpOptimWrapper')


def bare(kind: Any) -> str:
    """Name of a registered class without its scope."""
    return str(getattr(kind, '__name__', kind)).rsplit('.', 1)[-1]


def pair(value: Any) -> tuple[int, int]:
    return tuple(value) if isinstance(value, (list, tuple)) else (value, value)


def has_autocast(cfg: Mapping) -> bool:
    wrapper = cfg.get('optim_wrapper') or {}
    return bare(wrapper.get('type', '')) in AUTOCAST and wrapper.get('dtype') != 'float32'


def pipeline_of(cfg: Mapping) -> list[Mapping]:
    """The transforms of training; empty where the config names none."""
    return list(((cfg.get('train_dataloader') or {}).get('dataset') or {}).get('pipeline') or ())


def train_steps(cfg: Mapping) -> list[Mapping]:
    """All transforms of training, those inside of choices too."""
    found, queue = [], [pipeline_of(cfg)]
    while queue:
        item = queue.pop(0)
        if isinstance(item, (list, tuple)):
            queue = list(item) + queue
        elif isinstance(item, Mapping):
            found.append(item)
            queue = list(item.get('transforms') or []) + queue
    return found


def backbone_size(cfg: Mapping, default: int) -> tuple[int, int]:
    """Height and width that the backbone of a config is built for."""
    return pair((cfg['model'].get('backbone') or {}).get('img_size', default))


def detector_size(cfg: Mapping) -> tuple[int, int]:
    """Height and width of a training image as a detector gets it.

    The padding of the preprocessor if that fixes the size; else the mean short side of the multi-scale list at an
    aspect of 4:3, padded; else what the backbone is built for.
    """
    divisor = (cfg['model'].get('data_preprocessor') or {}).get('pad_size_divisor', 32)
    if divisor >= 256:
        return divisor, divisor
    steps = [step for step in train_steps(cfg) if bare(step['type']) == 'RandomChoiceResize']
    shorts = [min(scale) for step in steps for scale in step['scales'][:99]]
    final = [short for short in shorts if short >= 480] or shorts
    if final:
        short = sum(final) / len(final)
        return tuple(-(-int(side) // divisor) * divisor for side in (short, short * 4 / 3))
    return backbone_size(cfg, 1024)
