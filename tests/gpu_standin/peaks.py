"""The most memory that steps of a recipe take, by torch's own allocator: OUT/run.sh python peaks.py RECIPE[:BATCH] ...

On the stand-in GPU (build_standin.py), at the recipe's batch size or another. One JSON line a recipe: what was
allocated and reserved at most, and what tools/plan.py estimates for one GPU, without its CUDA context, all in GB.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from jobs import make_weights, recipe
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DefaultScope
from torch.utils._pytree import tree_map_only

import mim_mm  # noqa: F401
from mim_mm.clock import Clock
from mim_mm.cost.count import count
from mim_mm.cost.inputs import read_batch
from mim_mm.cost.memory import memory
from mim_mm.registry import MODELS

STEPS = 3


def stepper(name: str, batch: int | None = None) -> tuple[Callable[[], None], int]:
    """A training step of configs/NAME.py on blank images, and how many; past the warm-up of the masks, if any."""
    cfg = recipe(name)
    batch = batch or cfg.train_dataloader.batch_size
    if 'tokenizer' in cfg.model:
        cfg.model.tokenizer_checkpoint = str(make_weights(cfg.model.tokenizer, Path(tempfile.mkdtemp()) / 'blank.pth'))
    if cfg.get('data_preprocessor'):
        cfg.model.setdefault('data_preprocessor', cfg.data_preprocessor)
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope')):
        with torch.device('cuda'):
            model = MODELS.build(cfg.model).cuda().train()
        wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
        one, _ = read_batch(cfg, None, 1)
    images = tree_map_only(torch.Tensor, lambda x: x.expand(batch, *x.shape[1:]).contiguous().pin_memory(), one)
    wrapper.initialize_count_status(model, 0, 100)
    if hasattr(model, 'begin_step'):
        model.begin_step(Clock.at_epoch(getattr(model.masker, 'random_epochs', 0)))
    return lambda: model.train_step(images, wrapper), batch


def peak(name: str, batch: int | None = None) -> dict:
    """GB of ``STEPS`` training steps of configs/NAME.py, with ``batch`` images a GPU."""
    step, batch = stepper(name, batch)
    torch.cuda.reset_peak_memory_stats()
    for _ in range(STEPS):
        step()
    most = dict(allocated=torch.cuda.max_memory_allocated(), reserved=torch.cuda.max_memory_reserved())
    cfg = recipe(name)
    planned = memory(count(cfg), cfg, batch, gpus=1)
    most['planned'] = planned['total'] - planned['context']
    return dict(recipe=name, batch=batch, **{key: round(value / 1e9, 2) for key, value in most.items()})


if __name__ == '__main__':
    for word in sys.argv[1:]:
        name, _, batch = word.partition(':')
        try:
            print(json.dumps(peak(name, int(batch) if batch else None)), flush=True)
        except Exception as error:
            print(json.dumps(dict(recipe=word, error=f'{type(error).__name__}: {error}'[:300])), flush=True)
        torch.cuda.empty_cache()
