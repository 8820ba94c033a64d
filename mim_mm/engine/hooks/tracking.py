"""A log that is always on disk, and trackers (TensorBoard, W&B, MLflow ...) that cannot end or slow a training.

``<attempt>/vis_data/scalars.json`` has one JSON object a log step, whatever a config says of ``vis_backends``; a kill
tears its last line at most, and a resumed attempt begins with ``{"resumed_from": step}``. Every other backend works in
a thread of its own, from a queue with an end.
"""

from __future__ import annotations

import functools
import logging
import os
import queue
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.visualization.vis_backend import BaseVisBackend, LocalVisBackend

from mim_mm import files
from mim_mm.compat.internals import own_folder
from mim_mm.config_parts import type_name
from mim_mm.engine.hooks.harmless import harmless
from mim_mm.registry import HOOKS, VISBACKENDS

ANSWER_S = 20.0  # how long the first round trip of a tracker is waited for
CLOSE_S = 10.0  # and its last lines
WAITING = 1000  # calls that may wait; later ones are dropped
OURS = ('LineVisBackend', 'SafeVisBackend')


def _plain(value: Any) -> Any:
    """Scalars as JSON takes them; what is no number, text or list of them is left as text."""
    if isinstance(value, (torch.Tensor, np.ndarray, np.generic)):
        return value.tolist()
    return value if isinstance(value, (str, int, float, bool, list, tuple, dict, type(None))) else str(value)


def _warn(text: str) -> None:
    print_log(text, logger='current', level=logging.WARNING)


@VISBACKENDS.register_module()
class LineVisBackend(LocalVisBackend):
    """mmengine's ``LocalVisBackend``, whose lines are appended whole and which a full disk does not stop.

    After an error the next line is tried all the same: the log goes on when there is room again.
    """

    _told = False

    def _safely(self, call, *args, **kwargs) -> None:
        try:
            call(*args, **kwargs)
        except Exception as error:
            if not self._told:
                self._told = True
                _warn(f'the log in {own_folder(self)} cannot be written ({error}); training goes on without its lines')

    def add_config(self, config: Config, **kwargs) -> None:
        self._safely(super().add_config, config, **kwargs)

    def add_image(self, name: str, image: np.ndarray, step: int = 0, **kwargs) -> None:
        self._safely(super().add_image, name, image, step, **kwargs)

    def add_scalar(self, name: str, value: Any, step: int = 0, **kwargs) -> None:
        self._safely(super().add_scalar, name, value, step, **kwargs)

    def add_scalars(self, scalar_dict: dict, step: int = 0, file_path: str | None = None, **kwargs) -> None:
        self._safely(super().add_scalars, scalar_dict, step, file_path, **kwargs)

    def _dump(self, value_dict: dict, file_path: str, file_format: str) -> None:
        files.append_row(file_path, {name: _plain(value) for name, value in value_dict.items()})


@VISBACKENDS.register_module()
class SafeVisBackend(BaseVisBackend):
    """Another backend, called in a thread of its own: whatever it raises, and however long it takes, training goes on.

    The config is its first call, which is waited for (20 s), so that a server that is away or a package that is missing
    is known at the start. One warning a backend; every call is tried anew.

    Args:
        backend: config of the backend.
        save_dir: given to it where it names none.
    """

    def __init__(self, backend: dict, save_dir: str | None = None):
        super().__init__(save_dir)
        self.backend, self.name = dict(backend), type_name(backend)
        self.backend.setdefault('save_dir', save_dir)
        self.inner: BaseVisBackend | None = None
        self._calls: queue.Queue = queue.Queue(WAITING)
        self._thread: threading.Thread | None = None
        self._told = self._hopeless = False

    def _init_env(self) -> None:
        """The thread does that."""

    @property
    def experiment(self) -> Any:
        return None if self.inner is None else self.inner.experiment

    def add_config(self, config: Config, **kwargs) -> None:
        answered = threading.Event()
        self._put('add_config', config, done=answered, **kwargs)
        if not answered.wait(ANSWER_S):
            self._tell(f'has not answered for {ANSWER_S:g} s')
        elif not self._told:
            print_log(f'{self.name} answers', logger='current')

    def add_graph(self, model: torch.nn.Module, data_batch: Any, **kwargs) -> None:
        """Not passed on: the model is trained meanwhile."""

    def add_image(self, name: str, image: np.ndarray, step: int = 0, **kwargs) -> None:
        if self._calls.qsize() < WAITING // 20:
            self._put('add_image', name, np.array(image), step, **kwargs)

    def add_scalar(self, name: str, value: Any, step: int = 0, **kwargs) -> None:
        self._put('add_scalar', name, _plain(value), step, **kwargs)

    def add_scalars(self, scalar_dict: dict, step: int = 0, file_path: str | None = None, **kwargs) -> None:
        self._put('add_scalars', {k: _plain(v) for k, v in scalar_dict.items()}, step, file_path, **kwargs)

    def close(self) -> None:
        if self._thread is None:
            return
        self._put('close')
        self._thread.join(CLOSE_S)
        if self._thread.is_alive():
            self._tell(f'did not take its last lines within {CLOSE_S:g} s')
        self._thread = None

    def _put(self, method: str, *args: Any, done: threading.Event | None = None, **kwargs: Any) -> None:
        if self._hopeless:
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, daemon=True)
            self._thread.start()
        try:
            self._calls.put_nowait((method, args, kwargs, done))
        except queue.Full:
            self._tell(f'is {WAITING} calls behind')

    def _work(self) -> None:
        method = ''
        while method != 'close' and not self._hopeless:
            method, args, kwargs, done = self._calls.get()
            try:
                if self.inner is None:
                    self.inner = VISBACKENDS.build(dict(self.backend))
                getattr(self.inner, method)(*args, **kwargs)
            except BaseException as error:  # a tracker that calls sys.exit as well
                self._hopeless = isinstance(error, ImportError)
                self._tell(f'failed ({type(error).__name__}: {str(error).strip().splitlines()[:1]})')
            if done is not None:
                done.set()

    def _tell(self, what: str) -> None:
        if not self._told:
            self._told = True
            _warn(f'{self.name} {what}; training goes on, and its log is in vis_data/scalars.json of the work dir')


@HOOKS.register_module()
class ResumedFromHook(Hook):
    """Write into the log from which step a resumed attempt goes on: later lines of earlier attempts do not count."""

    changes_learning = False

    @harmless
    def before_train(self, runner) -> None:
        if runner.iter > 0:
            runner.visualizer.add_scalars(dict(resumed_from=runner.iter), step=runner.iter)


def log_lines_may_fail(logger: logging.Logger) -> None:
    """A file or a pipe that takes no more lines (full disk) is said once, not as a traceback for every line."""
    for handler in logger.handlers:
        handler.handleError = functools.partial(_say_once, handler)


def _say_once(handler: logging.Handler, record: logging.LogRecord) -> None:
    if getattr(handler, 'failed', False):
        return
    handler.failed = True
    where = getattr(handler, 'baseFilename', 'standard output')
    try:
        print(f'{where} takes no more lines ({sys.exc_info()[1]}); training goes on', file=sys.stderr, flush=True)
    except (OSError, ValueError, AttributeError):  # standard error is closed as well, or was never there
        pass


def add_trackers(cfg: Config, names: Sequence[str]) -> None:
    """In place: trackers by name beside those of the config; runs are called and grouped as the work dir lies.

    The folder that the work dir is in, which is the chain's, is W&B's project and MLflow's experiment; MLflow writes to
    its ``mlruns``, or where ``MLFLOW_TRACKING_URI`` says. TensorBoard reads that folder as a whole.
    """
    work_dir = Path(cfg.work_dir).absolute()
    group, run = work_dir.parent.name, work_dir.name
    place = os.environ.get('MLFLOW_TRACKING_URI') or (work_dir.parent / 'mlruns').as_uri()
    known = dict(
        tensorboard=dict(type='TensorboardVisBackend'),
        wandb=dict(type='WandbVisBackend', init_kwargs=dict(project=group, name=run)),
        mlflow=dict(type='MLflowVisBackend', exp_name=group, run_name=run, tracking_uri=place),
    )
    visualizer = dict(cfg.get('visualizer') or dict(type='Visualizer'))
    backends = visualizer.get('vis_backends') or []
    backends = [backends] if isinstance(backends, dict) else list(backends)
    there = {type_name(backend) for backend in backends if isinstance(backend, dict)}
    backends += [known[name] for name in dict.fromkeys(names) if known[name]['type'] not in there]
    if names:
        cfg.visualizer = dict(visualizer, vis_backends=backends)


def make_trackers_safe(cfg: Config) -> None:
    """In place: the visualizer has the log on disk, and every other backend is a :class:`SafeVisBackend`."""
    visualizer = cfg.get('visualizer')
    if visualizer is not None and not isinstance(visualizer, dict):
        return  # built already
    visualizer = dict(visualizer or dict(type='Visualizer'))
    backends = visualizer.get('vis_backends') or []
    kept, found = [], [backends] if isinstance(backends, dict) else list(backends)
    for backend in found:
        kind = type_name(backend) if isinstance(backend, dict) else type(backend).__name__
        if kind in OURS or not isinstance(backend, dict):
            kept.append(backend)
        elif kind == 'LocalVisBackend':
            kept.append(dict(backend, type='mim_mm.LineVisBackend', name=backend.get('name', kind)))
        else:
            own = {key: value for key, value in backend.items() if key != 'name'}
            kept.append(dict(type='mim_mm.SafeVisBackend', name=backend.get('name', kind), backend=own))
    if not any(isinstance(b, dict) and type_name(b) == 'LineVisBackend' for b in kept):
        kept.insert(0, dict(type='mim_mm.LineVisBackend', name='LocalVisBackend'))
    cfg.visualizer = dict(visualizer, vis_backends=kept)
