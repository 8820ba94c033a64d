"""What is said of a run that was stopped because its steps were not finite: where, on which images, on which rank."""

from __future__ import annotations

import copy
import itertools
import re
from collections import deque
from pathlib import Path
from typing import Any

import torch
from mmengine.dataset import DefaultSampler, InfiniteSampler
from mmengine.dist import all_gather_object, get_rank, get_world_size, is_main_process
from torch import Tensor, nn
from torch.distributed.fsdp import FullyShardedDataParallel as FSDP

from mim_mm import files
from mim_mm.engine.bare_model import bare_model
from mim_mm.engine.optim.finite_step import FiniteStep

FILE_NAME = 'not_finite.json'


class Batches:
    """The places of the last batches in the data; their images are looked up only when somebody asks.

    Args:
        length: number of batches to remember.
    """

    def __init__(self, length: int) -> None:
        self.last: deque[tuple[int, int, int, list | None]] = deque(maxlen=length)

    def note(self, runner, batch_idx: int, data_batch: Any) -> None:
        """Before an iteration; what the batch says of its images is kept, where it says anything."""
        samples = data_batch.get('data_samples') if isinstance(data_batch, dict) else None
        named = None
        if isinstance(samples, (list, tuple)):
            named = [getattr(s, 'img_path', None) or getattr(s, 'sample_idx', None) for s in samples]
        self.last.append((runner.iter, runner.epoch, batch_idx, named))

    def images(self, runner, iteration: int) -> list[str]:
        """Path, or index in the data set, of each image of this rank's batch at ``iteration``; empty if not known."""
        for known, epoch, batch_idx, named in self.last:
            if known == iteration:
                if named and all(name is not None for name in named):
                    return [str(name) for name in named]
                try:
                    return _from_sampler(runner.train_dataloader, epoch, batch_idx, iteration)
                except Exception:  # a sampler or a data set of another kind: nothing is known
                    return []
        return []


def _from_sampler(loader, epoch: int, batch_idx: int, iteration: int) -> list[str]:
    sampler, size = copy.copy(loader.sampler), loader.batch_size
    if isinstance(sampler, InfiniteSampler):
        fresh = InfiniteSampler(sampler.dataset, sampler.shuffle, sampler.seed)
        order = itertools.islice(iter(fresh), iteration * size, (iteration + 1) * size)
    elif isinstance(sampler, DefaultSampler):
        sampler.set_epoch(epoch)
        order = itertools.islice(iter(sampler), batch_idx * size, (batch_idx + 1) * size)
    else:
        return []
    return [_name(loader.dataset, int(index)) for index in order]


def _name(dataset, index: int) -> str:
    info = dataset.get_data_info(index) if hasattr(dataset, 'get_data_info') else {}
    return f'{info.get("img_path", "image")} (index {index})'


def layer_of(name: str) -> str:
    """The layer of a parameter: its name up to the first number, or its first two parts."""
    numbered = re.match(r'(.*?\.\d+)(\.|$)', name)
    return numbered[1] if numbered else '.'.join(name.split('.')[:2])


def by_layer(names: list[str], norms: Tensor) -> dict[str, float | str]:
    """Norm of each layer, from those of its parameters; 'nan' and 'inf' as text, which JSON has no number for."""
    squares: dict[str, float] = {}
    for name, norm in zip(names, norms.tolist()):
        squares[layer_of(name)] = squares.get(layer_of(name), 0.0) + norm * norm
    roots = {layer: square**0.5 for layer, square in squares.items()}
    return {layer: root if root - root == 0 else str(root) for layer, root in roots.items()}


def local_gradients(runner, data_batch: Any) -> dict[str, float | str]:
    """Norms of the gradients of this rank alone, by layer, for one batch; the gradients of the run are lost.

    With DDP's own forward pass left out nothing is averaged. All ranks must call it.
    """
    model, wrapper = bare_model(runner), runner.optim_wrapper
    wrapper.zero_grad()
    with wrapper.optim_context(model):
        data = model.data_preprocessor(data_batch, True)
        losses = model(**data, mode='loss') if isinstance(data, dict) else model(*data, mode='loss')
    model.parse_losses(losses)[0].backward()
    found = [(name, p.grad) for name, p in model.named_parameters() if p.grad is not None]
    return by_layer([name for name, _ in found], torch.stack([grad.norm().float() for _, grad in found]))


def parameter_norms(model: nn.Module) -> dict[str, float | str]:
    """By layer; under FSDP of this rank's shard."""
    found = [(name, p.detach()) for name, p in model.named_parameters() if p.numel()]
    return by_layer([name for name, _ in found], torch.stack([value.norm().float() for _, value in found]))


def diagnose(runner, step: FiniteStep, batches: Batches, data_batch: Any, first: int, own: int, row: int) -> str:
    """Gather what all ranks know, write ``WORK_DIR/not_finite.json`` and return it in a sentence or two.

    Args:
        first: iteration (from 0) of the first bad step of the row.
        own: whether this rank's own loss was not finite there.
        row: bad steps in a row.
    """
    facts: dict[str, Any] = dict(rank=get_rank(), loss_is_finite=not own, images=batches.images(runner, first))
    facts['gradient_norms'] = by_layer(step.names_at_first, step.norms_at_first)
    facts['parameter_norms'] = parameter_norms(runner.model)
    everywhere = all_gather_object(facts)
    guilty = [f['rank'] for f in everywhere if not f['loss_is_finite']]
    if not guilty and get_world_size() > 1 and not isinstance(runner.model, FSDP):
        alone = local_gradients(runner, data_batch)
        bad = [layer for layer, norm in alone.items() if isinstance(norm, str)]
        for other, f in zip(all_gather_object((alone, bad)), everywhere):
            f['own_gradient_norms_of_the_last_batch'] = other[0]
            guilty += [f['rank']] if other[1] else []
    if get_world_size() == 1:
        guilty = [0]
    report = dict(first_iteration=first + 1, steps_in_a_row=row, ranks_at_fault=guilty, ranks=everywhere)
    path = Path(runner.work_dir) / FILE_NAME
    if is_main_process():
        files.write_json(path, report, allow_nan=False)
    layers = [layer for layer, norm in everywhere[0]['gradient_norms'].items() if isinstance(norm, str)]
    weights = [layer for f in everywhere for layer, norm in f['parameter_norms'].items() if isinstance(norm, str)]
    shown = next((f for f in everywhere if f['rank'] in guilty and f['images']), everywhere[0])
    images = ', '.join(shown['images'][:4]) + (' ...' if len(shown['images']) > 4 else '')
    cause = 'the loss' if any(not f['loss_is_finite'] for f in everywhere) else 'the gradient, not the loss,'
    return (
        f'first at iteration {first + 1}, where {cause} was not finite on rank '
        f'{", ".join(map(str, guilty)) or "(not known)"}; layers with such gradients: {len(layers)} of '
        f'{len(everywhere[0]["gradient_norms"])} ({", ".join(layers[:3])}); such weights: '
        f'{", ".join(dict.fromkeys(weights)) or "none"}; images of that batch: {images or "not known"}. '
        f'All norms and images: {path}'
    )
