"""``progress.json``: how far a run is, readable at any moment by another process.

The chain (``mim_mm.transfer``) and anybody with ``cat`` can follow a run without parsing its log. The file is replaced
by rename, so a reader never sees half of it, and no failure to make or write it ever stops a training run.
"""

from __future__ import annotations

import math
import os
import platform
import time
from pathlib import Path

import torch
from mmengine.device import get_device
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop

from mim_mm import files
from mim_mm.compat.internals import built_loop
from mim_mm.engine.hooks.harmless import harmless
from mim_mm.registry import HOOKS

FILE_NAME = 'progress.json'


def _number(value):
    """A finite Python number out of a scalar, tensor or array; anything else, NaN and infinities included, is None."""
    if isinstance(value, bool) or value is None:
        return value
    try:
        value = value.item() if hasattr(value, 'item') else value
        number = value if isinstance(value, int) else float(value)
    except (TypeError, ValueError, RuntimeError):  # not a scalar
        return None
    return number if math.isfinite(number) else None


def _jsonable(metrics: dict) -> dict:
    """Metrics as json takes them: numbers stay numbers (not finite -> null), strings stay, the rest is left out."""
    kept = {}
    for name, value in metrics.items():
        if isinstance(value, str):
            kept[str(name)] = value
            continue
        number = _number(value)
        if number is not None or isinstance(value, float):
            kept[str(name)] = number
    return kept


@HOOKS.register_module()
class ProgressHook(Hook):
    """Write ``<work_dir>/progress.json`` every few seconds, after each validation and at the end.

    Keys: ``epoch``, ``max_epochs``, ``iter``, ``max_iters`` (finished ones; ``max_epochs`` is null in iteration-based
    loops), ``eta_s``, ``elapsed_s`` (seconds of training, earlier attempts of a resumed run included), ``loss``,
    ``train`` (last training scalars), ``metrics`` (last validation or test metrics), ``checkpoint`` (file name of the
    last one, or null), ``device``, ``finished``, ``pid``, ``updated`` (seconds since the epoch).

    The ETA is the mean time of an iteration of this process, validation included and the first iteration (warm-up,
    compilation) left out, times the iterations to go.

    Args:
        interval: write at multiples of this number of iterations only; None: after any, as a log interval may be hours.
        min_seconds: writes during training are at least this far apart, which keeps very short iterations cheap.
    """

    # After CheckpointHook (VERY_LOW), so that what is written names the checkpoint just saved.
    priority = 'LOWEST'
    changes_learning = False

    def __init__(self, interval: int | None = None, min_seconds: float = 2.0):
        if interval is not None and interval < 1:
            raise ValueError(f'ProgressHook: interval={interval} must be at least 1 iteration, or None for any')
        self.interval = interval
        self.min_seconds = min_seconds
        self._metrics: dict = {}
        self._earlier_s = 0.0
        self._start = time.monotonic()
        self._timed_from: tuple | None = None  # (iterations done, monotonic time) after the first iteration
        self._last_write = -math.inf

    # ---- moments of a run

    @harmless
    def before_train(self, runner) -> None:
        if runner.iter > 0:  # resumed: what earlier attempts measured still holds
            earlier = read_progress(runner.work_dir)
            self._metrics = earlier.get('metrics') or {}
            self._earlier_s = earlier.get('elapsed_s') or 0.0
        self._start = time.monotonic()
        self._timed_from = None
        self._write(runner, done=runner.iter)

    @harmless
    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        done = runner.iter + 1
        if self._timed_from is None:
            self._timed_from = (done, time.monotonic())
        if done % (self.interval or 1) == 0 and time.monotonic() - self._last_write >= self.min_seconds:
            self._write(runner, done)

    @harmless
    def after_val_epoch(self, runner, metrics=None) -> None:
        self._metrics.update(_jsonable(metrics or {}))
        loop = self._loop(runner)
        self._write(runner, 0 if loop is None else loop.iter)

    after_test_epoch = after_val_epoch

    @harmless
    def after_train(self, runner) -> None:
        self._write(runner, runner.iter, finished=True)

    # ---- what is written

    @staticmethod
    def _loop(runner):
        """The train loop once it is built; asking ``runner.iter`` would build it, which a test-only run must not do."""
        return built_loop(runner, 'train')

    def _write(self, runner, done: int, finished: bool = False) -> None:
        """Write the file, on rank 0 only."""
        if is_main_process():
            self._last_write = time.monotonic()
            write_progress(runner.work_dir, self._snapshot(runner, done, finished))

    def _snapshot(self, runner, done: int, finished: bool) -> dict:
        loop = self._loop(runner)
        by_epoch = isinstance(loop, EpochBasedTrainLoop) or getattr(loop, 'max_epochs', 1) > 1
        now = time.monotonic()
        eta = 0.0 if finished else None
        if loop is not None and not finished and self._timed_from is not None and done > self._timed_from[0]:
            iteration_s = (now - self._timed_from[1]) / (done - self._timed_from[0])
            eta = round(iteration_s * max(0, loop.max_iters - done), 1)
        train = {
            name[len('train/') :]: _number(buffer.current())
            for name, buffer in runner.message_hub.log_scalars.items()
            if name.startswith('train/') and len(buffer.data[0])
        }
        last = runner.message_hub.runtime_info.get('last_ckpt')
        return dict(
            epoch=0 if loop is None else loop.epoch,
            max_epochs=loop.max_epochs if by_epoch else None,
            iter=done,
            max_iters=None if loop is None else loop.max_iters,
            eta_s=eta,
            elapsed_s=round(self._earlier_s + now - self._start, 1),
            loss=train.get('loss'),
            train=train,
            metrics=self._metrics,
            checkpoint=os.path.basename(last) if last else None,
            device=device_name(),
            finished=finished,
            pid=os.getpid(),
            updated=time.time(),
        )


def device_name() -> str:
    """The accelerator's own name (``NVIDIA H100``), the processor's and its threads, or the kind of device."""
    kind = get_device()
    if kind == 'cuda':
        return torch.cuda.get_device_name()
    return f'cpu: {cpu_name()}, {torch.get_num_threads()} thread(s)' if kind == 'cpu' else kind


def cpu_name() -> str:
    """The processor's own name where the system tells it, else its architecture."""
    try:
        lines = Path('/proc/cpuinfo').read_text().splitlines()
        return next(line.split(':', 1)[1].strip() for line in lines if line.startswith('model name'))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def write_progress(work_dir, progress: dict) -> None:
    """Replace ``<work_dir>/progress.json``. No fsync: the file is a signal, rewritten often, and never resumed from."""
    files.write_json(Path(work_dir) / FILE_NAME, progress, sync=False, allow_nan=False)


def read_progress(work_dir) -> dict:
    """What the last write left, or an empty dict when there is no readable file."""
    return files.known_object(Path(work_dir) / FILE_NAME)
