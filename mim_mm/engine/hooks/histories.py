"""What mmengine remembers of each metric: the newest values, not all of a training."""

from __future__ import annotations

from mmengine.logging import HistoryBuffer

KEPT = 5000  # newest values of a metric, at least; more where an epoch or an average of the log is longer


def logged(buffer: HistoryBuffer) -> int:
    """How many values a metric has had in this process, those included that :func:`forget` left out."""
    return len(buffer.data[0]) + getattr(buffer, 'forgotten', 0)


def forget(buffer: HistoryBuffer, kept: int) -> None:
    """Leave out all but the newest ``kept`` values, once there are twice as many.

    mmengine keeps a million and copies them all whenever one is added (nine metrics, one CPU core: 1 ms an iteration
    after a quarter of a million, 6 ms after a million), and saves them with every checkpoint.
    """
    values, counts = buffer.data
    extra = len(values) - kept
    if extra >= kept:
        buffer._log_history, buffer._count_history = values[extra:].copy(), counts[extra:].copy()
        buffer.forgotten = getattr(buffer, 'forgotten', 0) + extra


def longest_average(runner) -> float:
    """Values of a metric that the log may average over: an epoch, or what its ``custom_cfg`` says."""
    try:
        longest = max(KEPT, len(runner.train_dataloader))
    except TypeError:  # a stream
        longest = KEPT
    for entry in getattr(runner.log_processor, 'custom_cfg', None) or ():
        window = entry.get('window_size')
        longest = float('inf') if window == 'global' else max(longest, window) if isinstance(window, int) else longest
    return longest
