"""Worker processes of a ``DataLoader``: they leave stopping to the process they work for, and never outlive it.

A signal to the whole process group reaches them as well. Each is started with the signals blocked, under every start
method, so that there is no moment in which one of them could be killed by a request to stop.
"""

from __future__ import annotations

import ctypes
import functools
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import context, resource_tracker

STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)
WAIT_S = 1800.0  # for a batch, where a loader says nothing; as long as ranks wait for each other
CHECK_S = 5.0
PR_SET_PDEATHSIG = 1


@contextmanager
def blocked() -> Iterator[None]:
    """Requests to stop wait while the body runs; a process that is started there inherits it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def die_with_parent() -> None:
    """Let the kernel kill this process when the thread that started it ends; nothing where it cannot (no Linux)."""
    try:
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    except (OSError, AttributeError):
        pass


class _Shielded:
    """A process of :mod:`multiprocessing` that starts with the signals blocked."""

    by_main_thread = False

    def start(self) -> None:
        self.by_main_thread = threading.current_thread() is threading.main_thread()
        with blocked():
            super().start()


class ForkWorker(_Shielded, context.ForkProcess):
    pass


class SpawnWorker(_Shielded, context.SpawnProcess):
    pass


class ForkServerWorker(_Shielded, context.ForkServerProcess):
    pass


class _Fork(context.ForkContext):
    Process = ForkWorker


class _Spawn(context.SpawnContext):
    Process = SpawnWorker


class _ForkServer(context.ForkServerContext):
    Process = ForkServerWorker


CONTEXTS = dict(fork=_Fork, spawn=_Spawn, forkserver=_ForkServer)


def _outlive_terms(employer: int) -> None:
    """In a thread of a worker: outlive SIGTERM, which the whole group gets, perhaps from several senders, so that the
    last batches arrive. One from the training process itself, which ends its workers so, is followed at once."""
    parent = os.getppid()  # the employer, or the fork server
    while True:
        got = signal.sigtimedwait([signal.SIGTERM], CHECK_S)
        if (got is not None and got.si_pid == employer) or os.getppid() != parent:
            os._exit(0)


def _start_worker(worker_id: int, then=None) -> None:
    """``worker_init_fn`` of a shielded loader; ``then`` is the one it had."""
    process, employer = multiprocessing.current_process(), multiprocessing.parent_process()
    if getattr(process, 'by_main_thread', False):
        die_with_parent()
    for number in (signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    # torch's own handler ends a worker at once, and the training with it ("DataLoader worker is killed by signal").
    if hasattr(signal, 'sigtimedwait'):
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        threading.Thread(target=_outlive_terms, args=(employer.pid,), daemon=True).start()
    waiting = (signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)
    signal.pthread_sigmask(
        signal.SIG_UNBLOCK, waiting if hasattr(signal, 'sigtimedwait') else (*waiting, signal.SIGTERM)
    )
    if then is not None:
        then(worker_id)


def shield_workers(loader: object | None, wait_s: float = WAIT_S) -> None:
    """Let workers of a ``DataLoader`` that start from now on leave stopping to the process they work for.

    Args:
        loader: None and one without workers are left alone.
        wait_s: seconds after which a batch that does not come is an error, where the loader has no ``timeout``.
    """
    init = getattr(loader, 'worker_init_fn', None)
    if loader is None or getattr(init, 'func', None) is _start_worker:
        return
    loader.worker_init_fn = functools.partial(_start_worker, then=init)
    if not loader.num_workers:
        return
    chosen = loader.multiprocessing_context
    method = multiprocessing.get_start_method() if chosen is None else chosen.get_start_method()
    if method != 'fork':
        with blocked():  # started later, it would unblock SIGTERM in a worker's start
            resource_tracker.ensure_running()
    loader.multiprocessing_context = CONTEXTS[method]()
    if method != 'forkserver':  # torch sees a dead worker of a fork server only where it waits without a limit
        loader.timeout = loader.timeout or wait_s


def end_workers() -> None:
    """Kill all shielded workers of this process, one that is stopped or lost in a loop too, right before it ends itself
    by ``os._exit``: torch may wait for ever for what a killed worker held."""
    workers = [child for child in multiprocessing.active_children() if isinstance(child, _Shielded)]
    for worker in workers:
        worker.kill()
