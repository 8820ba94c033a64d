"""What a checkpoint has to hold besides weights and optimizer for a run to go on as if nothing had happened."""

from __future__ import annotations

import random
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from mmengine.dist import all_gather_object, all_reduce, get_world_size
from mmengine.optim import OptimWrapperDict
from torch import nn

from mim_mm.checkpoint.atomic import epoch_advice


class ResumeError(RuntimeError):
    """A checkpoint from which this run cannot go on; the message says what to resume with."""


# ---- random numbers


def _own_generators(model: nn.Module | None) -> Iterator[tuple[str, torch.Generator]]:
    """The generators that modules hold as attributes, by name."""
    for name, module in model.named_modules() if model is not None else ():
        for attribute, value in vars(module).items():
            if isinstance(value, torch.Generator):
                yield f'{name}.{attribute}', value


def random_state(model: nn.Module | None = None) -> dict[str, Any]:
    """State of torch's, CUDA's (every visible device), numpy's and Python's generators and of those that modules of
    ``model`` hold, as tensors and plain types."""
    kind, keys, position, has_gauss, cached = np.random.get_state()
    version, words, gauss = random.getstate()
    return dict(
        torch=torch.get_rng_state(),
        cuda=torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None,
        numpy=[kind, torch.from_numpy(keys.astype(np.int64)), int(position), int(has_gauss), float(cached)],
        python=[version, torch.tensor(words, dtype=torch.int64), gauss],
        modules={name: generator.get_state() for name, generator in _own_generators(model)},
    )


def set_random_state(state: dict[str, Any], model: nn.Module | None = None) -> None:
    """Put back what :func:`random_state` returned; the tensors may lie on any device."""
    torch.set_rng_state(state['torch'].cpu())
    devices = state['cuda'] or []
    if torch.cuda.is_initialized() and len(devices) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all([one.cpu() for one in devices])
    kind, keys, position, has_gauss, cached = state['numpy']
    np.random.set_state((kind, keys.cpu().numpy().astype(np.uint32), position, has_gauss, cached))
    version, words, gauss = state['python']
    random.setstate((version, tuple(words.tolist()), gauss))
    for name, generator in _own_generators(model):
        if name in state['modules']:
            generator.set_state(state['modules'][name].cpu())


# ---- buffers of ranks


def own_buffers(model: nn.Module) -> dict[str, torch.Tensor]:
    """Copies of the floating-point buffers that this rank has otherwise than others: statistics of a BatchNorm that is
    not synchronised. Called on every rank; a checkpoint holds those of the first one alone.
    """
    if get_world_size() == 1:
        return {}
    buffers = {name: value.detach() for name, value in model.named_buffers() if value.is_floating_point()}
    # Laid out flat: a single number has no bytes to be viewed as.
    digests = {name: zlib.crc32(v.cpu().reshape(-1).view(torch.uint8).numpy()) for name, v in buffers.items()}
    others = all_gather_object(digests)
    return {n: v.cpu().clone() for n, v in buffers.items() if any(other.get(n) != digests[n] for other in others)}


def set_own_buffers(model: nn.Module, values: dict[str, torch.Tensor]) -> None:
    """Put back what :func:`own_buffers` returned."""
    buffers = dict(model.named_buffers())
    for name, value in values.items():
        if name in buffers and buffers[name].shape == value.shape:
            buffers[name].copy_(value)


# ---- accumulated gradients


def window_is_open(runner) -> bool:
    """Whether gradients of finished iterations wait for an optimizer step; never of a sharded model, which holds them
    in pieces: there they are lost with the process."""
    several = isinstance(runner.optim_wrapper, OptimWrapperDict)
    wrappers = runner.optim_wrapper.values() if several else [runner.optim_wrapper]
    updated = all(getattr(wrapper, 'should_update', lambda: True)() for wrapper in wrappers)
    sharded = any(kind.__name__ == 'FullyShardedDataParallel' for kind in type(runner.model).__mro__)
    return not updated and not sharded


def mean_gradient(model: nn.Module) -> dict[str, torch.Tensor]:
    """Set the gradient of each parameter to its mean over the ranks, and return copies of them by name."""
    learnt = [(name, param) for name, param in model.named_parameters() if param.requires_grad]
    if get_world_size() > 1:
        device = next(model.parameters()).device
        there = torch.tensor([float(param.grad is not None) for _, param in learnt], device=device)
        all_reduce(there, op='max')
        for (_, param), one in zip(learnt, there.tolist(), strict=True):
            if one:
                param.grad = torch.zeros_like(param) if param.grad is None else param.grad
                all_reduce(param.grad, op='mean')
    return {name: param.grad.detach().cpu().clone() for name, param in learnt if param.grad is not None}


def set_gradient(model: nn.Module, gradient: dict[str, torch.Tensor]) -> None:
    """Put back what :func:`mean_gradient` returned.

    Raises:
        ResumeError: a name or a shape is not the model's.
    """
    params = dict(model.named_parameters())
    for name, value in gradient.items():
        if name not in params or params[name].shape != value.shape:
            raise ResumeError(
                f'the checkpoint holds an accumulated gradient of {name} {tuple(value.shape)}, the model has '
                f'{tuple(params[name].shape) if name in params else "no such parameter"}: resume with the model that '
                'was trained, or start a new run from its weights (load_from, without --resume)'
            )
        params[name].grad = value.to(params[name].device, params[name].dtype).clone()


# ---- the place in an epoch


def unseen(loop, iteration: int, epoch: int, epoch_length: int | None) -> int:
    """Batches of the current epoch that were trained before the checkpoint.

    Args:
        loop: the epoch-based loop that goes on.
        iteration, epoch: finished ones, as the checkpoint counts them.
        epoch_length: batches of an epoch when the checkpoint was written; None in checkpoints of other projects.

    Raises:
        ResumeError: the checkpoint is from the middle of an epoch whose batches were others.
    """
    seen = iteration - epoch * (epoch_length or 0)
    if not epoch_length or seen <= 0:
        return 0
    now = len(loop.dataloader)
    if now != epoch_length:
        raise ResumeError(
            f'the checkpoint is from the middle of epoch {epoch + 1}, after {seen} of {epoch_length} batches; an epoch '
            f'has {now} batches now (other batch size, number of devices or data), so nobody can tell which images '
            'were seen. Resume with the settings it was stopped with, or '
            f'{epoch_advice(loop.runner.work_dir, epoch)}'
        )
    return seen
