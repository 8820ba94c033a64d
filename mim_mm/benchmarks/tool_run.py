"""The real ``tools/train.py`` for a few iterations in this process: images/s, and how often its loop waits."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import torch

from mim_mm.benchmarks.timing import synchronize

WAIT = 'synchronizing CUDA operation'  # of torch's warning where the host waits
FIRST = 5  # iterations that are left out of the figures, at most a quarter


def class_folders(folder: Path, train: int, val: int = 8, distinct: int = 256, side: int = 320) -> Path:
    """``train`` + ``val`` JPEGs in two classes, of which ``distinct`` are different, the rest links to them."""
    draws = np.random.default_rng(0)
    for part, count in (('train', train), ('val', val)):
        made: list[Path] = []
        for i in range(count):
            path = folder / part / f'class{i % 2}' / f'{i:06d}.jpg'
            if path.exists():
                made.append(path)
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            if i >= distinct:
                os.link(made[i % distinct], path)
                continue
            coarse = draws.integers(0, 256, (side // 16, side // 16, 3), dtype=np.uint8)
            cv2.imwrite(str(path), cv2.resize(coarse, (side * 4 // 3, side), interpolation=cv2.INTER_CUBIC))
            made.append(path)
    return folder


def train(
    config: str,
    data: Path,
    work: Path,
    iterations: int,
    batch: int,
    workers: int,
    options: dict,
) -> dict:
    """Train ``config`` for an epoch of ``iterations`` on the first images of ``data`` (:func:`class_folders`).

    Args:
        options: further ``--cfg-options``.

    Returns:
        ``dict(images_s, waits, iterations, peak_gib)``: ``waits`` is the host's waits for the device in an iteration
        (median after the first ones, logging included), None on a CPU.

    Raises:
        RuntimeError: the training ended with another exit code than 0.
    """
    from mim_mm.engine.start.launch import train_main

    shutil.rmtree(work, ignore_errors=True)
    options = {
        'train_dataloader.batch_size': batch,
        'train_dataloader.num_workers': workers,
        'train_dataloader.persistent_workers': False,
        'train_cfg.max_epochs': 1,
        'param_scheduler': '[]',
        'default_hooks.logger.interval': iterations,
        'default_hooks.checkpoint.interval': -1,
        'default_hooks.checkpoint.save_last': False,
        **options,
    }
    text = [f'{key}={value}' for key, value in options.items()]
    command = [config, '--data-root', str(data), '--work-dir', str(work), '--cfg-options', *text]
    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    with _watched_loop(cuda) as (times, waits):
        try:
            train_main(command)
        except SystemExit as end:
            if end.code not in (None, 0):
                raise RuntimeError(f'tools/train.py {config} ended with {end.code}') from None
    first = min(FIRST, len(times) // 4)
    if len(times) - first < 2:
        raise RuntimeError(f'tools/train.py {config} made {len(times)} iterations, too few to measure')
    taken = (times[-1] - times[first]) / (len(times) - 1 - first)
    late = sorted(b - a for a, b in zip(waits[first:], waits[first + 1 :]))
    return dict(
        images_s=batch / taken,
        waits=late[len(late) // 2] if cuda else None,
        iterations=len(times),
        peak_gib=torch.cuda.max_memory_allocated() / 2**30 if cuda else None,
    )


@contextlib.contextmanager
def _watched_loop(cuda: bool) -> Iterator[tuple[list[float], list[int]]]:
    """Seconds at the end of each iteration, and the waits up to then, as mmengine's loops make them.

    The device is waited for before each reading of the clock, which costs the overlap with the next iteration's start;
    waiting is not counted itself.
    """
    from mmengine.runner import loops

    times: list[float] = []
    waits: list[int] = []
    original = {kind: kind.run_iter for kind in (loops.EpochBasedTrainLoop, loops.IterBasedTrainLoop)}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')

        def watched(kind):
            def run_iter(self, *args, **kwargs):
                original[kind](self, *args, **kwargs)
                waits.append(sum(WAIT in str(warning.message) for warning in caught))
                if cuda:
                    torch.cuda.set_sync_debug_mode('default')
                    synchronize(torch.device('cuda'))
                    torch.cuda.set_sync_debug_mode('warn')
                times.append(time.perf_counter())

            return run_iter

        try:
            for kind in original:
                kind.run_iter = watched(kind)
            if cuda:
                torch.cuda.set_sync_debug_mode('warn')
            yield times, waits
        finally:
            for kind, run_iter in original.items():
                kind.run_iter = run_iter
            if cuda:
                torch.cuda.set_sync_debug_mode('default')
