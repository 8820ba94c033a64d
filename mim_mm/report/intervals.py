"""Mean, spread and paired intervals over seeds, and the one rule by which an arm may be called better."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import mean, stdev

__all__ = ['CONFIDENCE', 'RULE', 'Paired', 'interval', 'paired', 'spread', 'verdict']

CONFIDENCE = 0.95
LEAST = 3  # pairs without which nothing is judged
RULE = (
    f'Rule: an arm is called better when the {CONFIDENCE:.0%} t interval of its differences, paired by seed, leaves '
    f'out zero, with {LEAST} seeds or more. Mean ± sample standard deviation (n - 1). The intervals are not '
    'corrected for being several: of twenty true ties about one leaves out zero by chance.'
)


def spread(values) -> str:
    """``86.0 ± 2.0 (n = 3)``; one value has no spread."""
    values = list(values)
    if not values:
        return '–'
    if len(values) == 1:
        return f'{values[0]:.1f} (n = 1)'
    return f'{mean(values):.1f} ± {stdev(values):.1f} (n = {len(values)})'


def interval(values, confidence: float = CONFIDENCE) -> tuple[float, float] | None:
    """The t interval of a mean, ``mean ± t(n - 1) * s / sqrt(n)``; None for fewer than two values."""
    from scipy import stats

    values = list(values)
    n = len(values)
    if n < 2:
        return None
    half = float(stats.t.ppf(0.5 + confidence / 2, n - 1)) * stdev(values) / n**0.5
    return mean(values) - half, mean(values) + half


@dataclass(frozen=True)
class Paired:
    """Differences ``a - b`` of the seeds that both have; ``low`` and ``high`` are None for fewer than two."""

    n: int
    mean: float | None
    std: float | None = None
    low: float | None = None
    high: float | None = None


def paired(a: dict, b: dict, confidence: float = CONFIDENCE) -> Paired:
    """The t interval of the mean difference, ``mean ± t(n - 1) * s / sqrt(n)``, s the sample standard deviation.

    Args:
        a, b: seed -> value. A seed that only one of them has does not count.
    """
    differences = [a[seed] - b[seed] for seed in sorted(a.keys() & b.keys())]
    n = len(differences)
    if n < 2:
        return Paired(n, differences[0] if differences else None)
    low, high = interval(differences, confidence)
    return Paired(n, mean(differences), stdev(differences), low, high)


def verdict(pair: Paired, a: str, b: str) -> str:
    """What may be said of two arms, in words; see :data:`RULE`."""
    if pair.n < LEAST:
        return f'not judged: {pair.n} seed{"s" if pair.n != 1 else ""} of both'
    if pair.std <= 1e-9:
        return 'not judged: the difference is the same for every seed, so its spread is not known'
    if pair.low > 0:
        return f'{a} is better'
    if pair.high < 0:
        return f'{b} is better'
    return 'no difference shown'
