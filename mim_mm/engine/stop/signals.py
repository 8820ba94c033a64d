"""Remembering a request to stop (SIGTERM, Ctrl-C, SIGUSR1, SIGUSR2) until training can honour it."""

from __future__ import annotations

import os
import signal
import threading
import time

from mim_mm.data.workers import shield_workers

__all__ = ['EARLY', 'IN_TRAINING', 'INTERRUPTED', 'REQUEST', 'StopRequest', 'shield_workers']

# Slurm's --signal and scancel --signal send SIGUSR1 or SIGUSR2; preemption, torchrun and kill send SIGTERM.
EARLY = (signal.SIGUSR1, signal.SIGUSR2)
IN_TRAINING = (signal.SIGTERM, signal.SIGINT)  # before training there is nothing to save, and they end at once
INTERRUPTED = 128 + signal.SIGINT  # exit code after Ctrl-C
# A second signal later than this ends at once; torchrun and a process group deliver two together.
IMPATIENT_S = {signal.SIGTERM: 10.0, signal.SIGINT: 0.5}


class StopRequest:
    """The first signal that asked this process to stop.

    ``number`` is 0 until one arrives.
    """

    def __init__(self) -> None:
        self.number = 0
        self._asked_at = 0.0
        self._before: dict = {}
        self._pipe: tuple[int, int] | None = None

    def listen(self, *numbers: int) -> None:
        """Catch these signals from now on; outside the main thread, where Python allows no handlers, do nothing."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number in numbers:
            if number not in self._before:
                self._before[number] = signal.signal(number, self._note)
        if signal.SIGINT in self._before and self._pipe is None:
            self._watch_for_impatience()

    def forget(self) -> None:
        """Put back the handlers that were there before, and forget the request."""
        if threading.current_thread() is threading.main_thread():
            for number, handler in self._before.items():
                signal.signal(number, handler)
            self._before.clear()
            if self._pipe is not None:
                signal.set_wakeup_fd(-1)
                os.close(self._pipe[1])  # its thread reads the end, and closes the other one
                self._pipe = None
        self.number = 0

    def _note(self, number: int, frame) -> None:
        late = time.monotonic() - self._asked_at > IMPATIENT_S[signal.SIGTERM]
        if number == signal.SIGTERM and self.number and late:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGTERM)
        if not self.number:
            self.number, self._asked_at = number, time.monotonic()

    # ---- Ctrl-C twice

    def _watch_for_impatience(self) -> None:
        """Python's own handlers wait until the main thread leaves what it is in, such as a wait for another rank; the
        number of a signal arrives in a pipe without it."""
        self._pipe = os.pipe()
        for end in self._pipe:
            os.set_blocking(end, end == self._pipe[0])
        signal.set_wakeup_fd(self._pipe[1], warn_on_full_buffer=False)
        threading.Thread(target=self._read, args=(self._pipe[0], os.getpid()), daemon=True).start()

    def _read(self, end: int, pid: int) -> None:
        first = None
        while got := os.read(end, 1):
            if got[0] != signal.SIGINT:
                continue
            now = time.monotonic()
            if first is None:
                first = now
                self._tell('Ctrl-C: saving after this iteration, then ending (again to end at once, without saving)')
            elif now - first > IMPATIENT_S[signal.SIGINT]:
                self._tell('Ctrl-C again: ended at once; --resume goes on from the last checkpoint')
                os._exit(INTERRUPTED)
        os.close(end)

    @staticmethod
    def _tell(text: str) -> None:
        if os.environ.get('RANK', '0') == '0':
            os.write(2, f'\n{text}\n'.encode())


REQUEST = StopRequest()
