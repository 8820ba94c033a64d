"""Timing of things that take turns: what drifts (clocks, neighbours on the machine) meets all of them alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median

import torch


@dataclass(frozen=True)
class Timing:
    """Seconds of one contender, a value a round; ``peak`` is its largest CUDA memory in bytes, None on a CPU."""

    seconds: tuple[float, ...]
    peak: int | None = None

    @property
    def median(self) -> float:
        return median(self.seconds)

    @property
    def spread(self) -> float:
        """Half of the distance between the fastest and the slowest round, as a share of the median."""
        return (max(self.seconds) - min(self.seconds)) / 2 / self.median


def synchronize(device: torch.device) -> None:
    if device.type == 'cuda':
        torch.cuda.synchronize(device)


def take_turns(
    contenders: Mapping[str, Callable[[], object]],
    device: torch.device,
    rounds: int = 5,
    steps: int = 1,
    warmup: int = 1,
    prepare: Callable[[str], object] | None = None,
    say: Callable[[str], None] | None = None,
) -> dict[str, Timing | str]:
    """Time every contender once a round, in turn.

    Args:
        contenders: name -> a function that does one step.
        device: on CUDA, each round ends with a synchronisation.
        rounds: measured rounds.
        steps: steps of a contender in a round; the time is that of one step.
        warmup: unmeasured steps of each before the first round (compilation, allocation).
        prepare: called with a name before that contender's turn, unmeasured.
        say: told how far it is.

    Returns:
        name -> Timing, or the text of the error that this contender ended with (out of memory, a missing operator):
        the others go on without it.
    """
    if rounds < 1 or steps < 1 or warmup < 0:
        raise ValueError(f'rounds={rounds}, steps={steps}, warmup={warmup}: need at least 1, 1 and 0')
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    peaks: dict[str, int] = {}
    failed: dict[str, str] = {}
    for turn in range(-1, rounds):
        for name, step in contenders.items():
            if name in failed:
                continue
            if say:
                say(f'{name}: {"warm-up" if turn < 0 else f"round {turn + 1} of {rounds}"}')
            try:
                if prepare:
                    prepare(name)
                count = warmup if turn < 0 else steps
                taken, peak = _one_turn(step, count, device)
            except RuntimeError as error:  # torch's out-of-memory error is one of these
                failed[name] = str(error).splitlines()[0]
                if device.type == 'cuda':
                    torch.cuda.empty_cache()
                continue
            if turn >= 0:
                seconds[name].append(taken / steps)
                peaks[name] = max(peak or 0, peaks.get(name, 0))
    on_gpu = device.type == 'cuda'
    return {n: failed.get(n) or Timing(tuple(seconds[n]), peaks[n] if on_gpu else None) for n in contenders}


def _one_turn(step: Callable[[], object], count: int, device: torch.device) -> tuple[float, int | None]:
    synchronize(device)
    if device.type == 'cuda':
        torch.cuda.reset_peak_memory_stats(device)
    start = time.perf_counter()
    for _ in range(count):
        step()
    synchronize(device)
    taken = time.perf_counter() - start
    return taken, torch.cuda.max_memory_allocated(device) if device.type == 'cuda' else None


def matmul_rate(device: torch.device, dtype: torch.dtype, size: int | None = None, rounds: int = 5) -> float:
    """FLOP/s of the device on one large square matrix product: the limit that MFU is measured against.

    Args:
        size: side of the matrices; 8192 on CUDA, 2048 elsewhere.
    """
    size = size or (8192 if device.type == 'cuda' else 2048)
    left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    timing = take_turns({'matmul': lambda: left @ right}, device, rounds, steps=3, warmup=2)['matmul']
    if isinstance(timing, str):
        raise RuntimeError(f'a {size} x {size} product in {dtype} failed: {timing}')
    return 2.0 * size**3 / min(timing.seconds)
