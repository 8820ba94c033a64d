"""Going on from a checkpoint in the middle of an epoch as if nothing had happened.

mmengine resumes an epoch-based loop at its epoch's first batch while the iteration counter goes on, so a checkpoint
from the middle would train batches twice and outrun the schedule. Here the loader leaves out the batches that were
seen, by their indices, without reading them; the sampler's order of an epoch depends on seed and epoch only. The random
states of the process (mixup, drop path, and augmentation where ``num_workers=0``) are put back where they were.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from mmengine.runner import EpochBasedTrainLoop

from mim_mm.checkpoint.atomic import epoch_advice


class ResumeError(RuntimeError):
    """A checkpoint from which this run cannot go on; the message says what to resume with."""


def random_state() -> dict[str, Any]:
    """State of torch's, CUDA's, numpy's and Python's generators, as tensors and plain types."""
    kind, keys, position, has_gauss, cached = np.random.get_state()
    version, words, gauss = random.getstate()
    return dict(
        torch=torch.get_rng_state(),
        cuda=torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
        numpy=[kind, torch.from_numpy(keys.astype(np.int64)), int(position), int(has_gauss), float(cached)],
        python=[version, torch.tensor(words, dtype=torch.int64), gauss],
    )


def set_random_state(state: dict[str, Any]) -> None:
    """Put back what :func:`random_state` returned; the tensors may lie on any device."""
    torch.set_rng_state(state['torch'].cpu())
    if state['cuda'] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state['cuda'].cpu())
    kind, keys, position, has_gauss, cached = state['numpy']
    np.random.set_state((kind, keys.cpu().numpy().astype(np.uint32), position, has_gauss, cached))
    version, words, gauss = state['python']
    random.setstate((version, tuple(words.tolist()), gauss))


class SkipFirst:
    """A batch sampler whose first iteration leaves out ``count`` batches, then calls ``ready``; later ones are whole.

    Everything else, such as its length and ``set_epoch``, is the wrapped sampler's.
    """

    def __init__(self, batches, count: int, ready: Callable[[], None]):
        self.batches, self.count, self.ready = batches, count, ready

    def __iter__(self):
        count, ready = self.count, self.ready
        self.count, self.ready = 0, lambda: None
        # Runs when the loader asks for the first indices: after it drew its own seed, before it reads anything.
        indices = itertools.islice(iter(self.batches), count, None)
        ready()
        yield from indices

    def __len__(self) -> int:
        return len(self.batches)

    def __getattr__(self, name: str):
        if name == 'batches':  # while being unpickled
            raise AttributeError(name)
        return getattr(self.batches, name)


class _RestoreFirst:
    """The infinite iterator of an iteration-based loop; random states are put back before the first batch is read.

    mmengine advances it by ``steps``: by ``skip_iter`` (onedl-mmengine) or by as many ``next`` (mmengine 0.10.7).
    """

    def __init__(self, iterator, steps: int, ready: Callable[[], None]):
        self.iterator, self.steps, self.ready = iterator, steps, ready

    def __iter__(self):
        return self

    def skip_iter(self, count: int) -> None:
        self.iterator.skip_iter(count)
        self.steps = 0

    def __next__(self):
        if self.steps > 0:
            self.steps -= 1
        elif self.ready:
            getattr(self.iterator, '_ensure_iterator', lambda: None)()  # draws a seed of its own
            self.ready()
            self.ready = None
        return next(self.iterator)


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


def go_on_inside_epoch(loop: EpochBasedTrainLoop, seen: int, state: dict[str, Any] | None) -> None:
    """Leave out the first ``seen`` batches of the epoch that is about to start, and count on from there."""
    loader = loop.dataloader

    def ready() -> None:
        if state is not None:
            set_random_state(state)

    # DataLoader refuses the assignment although it works; iterators that exist already are not concerned.
    vars(loader)['batch_sampler'] = SkipFirst(loader.batch_sampler, seen, ready)
    loop.run_iter = lambda idx, data_batch: type(loop).run_iter(loop, idx + seen, data_batch)


def go_on_iterations(loop, state: dict[str, Any]) -> None:
    """Put the random states back in an iteration-based loop, which skips the batches it has seen by itself."""
    loop.dataloader_iterator = _RestoreFirst(loop.dataloader_iterator, loop.iter, lambda: set_random_state(state))
