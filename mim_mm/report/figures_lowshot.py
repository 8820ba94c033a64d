"""Accuracy against the number of labels, from what tools/lowshot.py measured."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.ticker import FuncFormatter, NullLocator

from mim_mm.report.figures import ARM_COLOURS, plt, save_figure, style

__all__ = ['draw_lowshot']


def draw_lowshot(summary: Sequence[dict], path: str | Path) -> Path:
    """Top-1 over labelled images a class, on a logarithmic axis, one line a pooling; the bars are a standard deviation.

    Args:
        summary: of :func:`mim_mm.evaluation.frozen.draws.summarise`; not empty.
    """
    places = sorted({row['per_class'] for row in summary})
    with plt.rc_context(style()):
        figure, axis = plt.subplots(figsize=(4.6, 3.2), layout='constrained')
        for number, pooling in enumerate(summary[0]['results']):
            values = [row['results'][pooling] for row in summary]
            axis.errorbar(
                # Beside each other, or the bars of one pooling would hide those of another.
                [row['per_class'] * 1.03 ** (number - 1) for row in summary],
                [v['top1'] for v in values],
                yerr=[v['top1_std'] or 0.0 for v in values],
                color=ARM_COLOURS[number],
                label=pooling,
                marker='o',
                markersize=4,
                capsize=3,
            )
        axis.set_xscale('log')
        axis.set_xticks(_apart(places))
        axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f'{value:,.4g}'))
        axis.xaxis.set_minor_locator(NullLocator())
        draws = sorted({len(row['draws']) for row in summary})
        spread = 'one draw each' if draws == [1] else f'mean and std of {"-".join(map(str, draws))} draws'
        axis.set(title='Few labels, frozen features', ylabel='top-1 (%)', xlabel=f'labelled images a class ({spread})')
        axis.margins(y=0.15)
        axis.legend()
        return save_figure(figure, Path(path))


def _apart(places: Sequence[float], factor: float = 1.25) -> list[float]:
    """Those that are at least so far from the one before that their numbers do not touch."""
    kept: list[float] = []
    for place in places:
        if not kept or place >= factor * kept[-1]:
            kept.append(place)
    return kept
