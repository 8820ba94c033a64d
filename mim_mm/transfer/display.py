"""What a person sees of a chain: the plan before it starts, and one line a moment while it runs."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Iterable
from typing import Any, TextIO


def span(seconds: float | None) -> str:
    """``1:02:03``, or ``3d 04:05`` beyond a day; ``?`` when unknown."""
    if seconds is None:
        return '?'
    minutes, rest = divmod(int(round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    if hours >= 24:
        return f'{hours // 24}d {hours % 24:02d}:{minutes:02d}'
    return f'{hours}:{minutes:02d}:{rest:02d}'


def progress_text(name: str, progress: dict[str, Any]) -> str:
    """``linear epoch 3/90 iter 120/5000 loss 0.512 ETA 1:02:03`` from the content of a progress.json."""
    if not progress:
        return f'{name} starting'
    parts = [name]
    if progress.get('max_epochs'):
        now = min((progress.get('epoch') or 0) + 1, progress['max_epochs'])
        parts.append(f'epoch {now}/{progress["max_epochs"]}')
    if progress.get('max_iters'):
        parts.append(f'iter {progress.get("iter")}/{progress["max_iters"]}')
    if progress.get('loss') is not None:
        parts.append(f'loss {progress["loss"]:.4g}')
    parts.append(f'ETA {span(progress.get("eta_s"))}')
    return ' '.join(parts)


def metrics_text(metrics: dict[str, Any], limit: int = 4) -> str:
    numbers = [f'{key} {value:.4g}' for key, value in metrics.items() if isinstance(value, (int, float))]
    return ', '.join(numbers[:limit])


class Display:
    """Lines that stay, and one that is refreshed in place on a terminal and repeated now and then elsewhere.

    Args:
        stream: where to write; standard output by default.
        every_s: seconds between two progress lines when the stream is not a terminal.
    """

    def __init__(self, stream: TextIO | None = None, every_s: float = 60.0):
        self.stream = stream or sys.stdout
        self.every_s = every_s
        self.live = self.stream.isatty() and os.environ.get('TERM') != 'dumb'
        self._shown = False
        self._last = time.monotonic()

    def say(self, line: str = '') -> None:
        self._clear()
        self._write(f'{line}\n')

    def progress(self, lines: Iterable[str]) -> None:
        text = ' | '.join(lines)
        if not text:
            return
        if self.live:
            width = shutil.get_terminal_size().columns - 1
            self._clear()
            self._write(text if len(text) <= width else text[: width - 3] + '...')
            self._shown = True
        elif time.monotonic() - self._last >= self.every_s:
            self._last = time.monotonic()
            self._write(f'{time.strftime("%H:%M:%S")} {text}\n')

    def _clear(self) -> None:
        if self._shown:
            self._write('\r\033[K')
            self._shown = False

    def _write(self, text: str) -> None:
        try:
            self.stream.write(text)
            self.stream.flush()
        except OSError:  # the terminal is gone; the chain is worth more than what it says
            pass


class Renaming(Display):
    """The same display, which says ``name`` wherever the text has ``folder``."""

    def __init__(self, display: Display, folder: str, name: str):
        super().__init__(display.stream, display.every_s)
        self._names = folder, name

    def _write(self, text: str) -> None:
        super()._write(text.replace(*self._names))
