"""Remembering a request to stop (SIGTERM, SIGUSR1, SIGUSR2) until training can honour it, in loader workers as well."""

from __future__ import annotations

import functools
import os
import signal
import threading
import time

# Slurm's --signal and scancel --signal send SIGUSR1 or SIGUSR2; preemption, torchrun and kill send SIGTERM.
EARLY = (signal.SIGUSR1, signal.SIGUSR2)
IMPATIENT_S = 10.0  # a second SIGTERM later than this ends at once; torchrun and a process group deliver two together
WORKER_GRACE_S = 60


class StopRequest:
    """The first signal that asked this process to stop.

    ``number`` is 0 until one arrives.
    """

    def __init__(self) -> None:
        self.number = 0
        self._asked_at = 0.0
        self._before: dict = {}

    def listen(self, *numbers: int) -> None:
        """Catch these signals from now on; outside the main thread, where Python allows no handlers, do nothing."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number in numbers:
            if number not in self._before:
                self._before[number] = signal.signal(number, self._note)

    def forget(self) -> None:
        """Put back the handlers that were there before, and forget the request."""
        if threading.current_thread() is threading.main_thread():
            for number, handler in self._before.items():
                signal.signal(number, handler)
            self._before.clear()
        self.number = 0

    def _note(self, number: int, frame) -> None:
        if number == signal.SIGTERM and self.number and time.monotonic() - self._asked_at > IMPATIENT_S:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGTERM)
        if not self.number:
            self.number, self._asked_at = number, time.monotonic()


REQUEST = StopRequest()


def _outlive_one_term() -> None:
    """In a thread of a loader worker: outlive the first SIGTERM, which the whole group gets, so that the last batches
    arrive. One from the training process itself, which ends its workers so, is followed at once."""
    asked = False
    while True:
        got = signal.sigtimedwait([signal.SIGTERM], WORKER_GRACE_S) if asked else signal.sigwaitinfo([signal.SIGTERM])
        if got is not None and got.si_pid == os.getppid():
            os._exit(0)
        if asked:
            os._exit(128 + signal.SIGTERM)
        asked = True


def _start_worker(worker_id: int, then=None) -> None:
    for number in EARLY:
        signal.signal(number, signal.SIG_IGN)
    # torch's own handler ends a worker at once, and the training with it ("DataLoader worker is killed by signal").
    if hasattr(signal, 'sigwaitinfo'):
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        threading.Thread(target=_outlive_one_term, daemon=True).start()
    if then is not None:
        then(worker_id)


def shield_workers(loader: object | None) -> None:
    """Let workers of a ``DataLoader`` that start from now on leave stopping to the process they work for."""
    init = getattr(loader, 'worker_init_fn', None)
    if loader is not None and getattr(init, 'func', None) is not _start_worker:
        loader.worker_init_fn = functools.partial(_start_worker, then=init)
