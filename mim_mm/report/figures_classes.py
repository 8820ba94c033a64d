"""Which classes are taken for which, and AP of each class."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mim_mm.report.class_results import KINDS, ClassAP, Confusion
from mim_mm.report.figures import ARM_COLOURS, plt, save_figure, style

__all__ = ['draw_class_aps', 'draw_confusion']

LETTERS = 22  # of a class name
WRITTEN = 12  # classes up to which the cells have their numbers
BARS = 40  # classes with bars; of more, half of them from either end


def _label(name: str) -> str:
    """A name for matplotlib, which reads formulas between dollars."""
    short = name if len(name) <= LETTERS else f'{name[: LETTERS - 1]}…'
    return short.replace('$', r'\$')


def draw_confusion(found: Confusion, path: str | Path) -> Path:
    """Write the row-normalised matrix as PNG; a row without test images is grey."""
    count, images = len(found.classes), found.images
    with np.errstate(invalid='ignore', divide='ignore'):
        shares = 100 * found.counts / images[:, None]
    side = min(max(0.24 * count + 1.9, 3.3), 9.5)
    small = min(8, 260 / count)
    with plt.rc_context({**style(), 'axes.grid': False, 'axes.spines.left': False, 'axes.spines.bottom': False}):
        figure, axis = plt.subplots(figsize=(side + 0.8, side), layout='constrained')
        axis.set_facecolor('#d0d5dd')
        drawn = axis.imshow(np.ma.masked_invalid(shares), cmap='Blues', vmin=0, vmax=100, interpolation='nearest')
        for row, column in np.ndindex(count, count) if count <= WRITTEN else ():
            if found.counts[row, column]:
                share = shares[row, column]
                look = dict(fontsize=small, color='white' if share > 55 else '#344054', ha='center', va='center')
                axis.text(column, row, f'{share:.0f}', **look)
        names = [_label(name) for name in found.classes]
        axis.set_xticks(range(count), names, rotation=90, fontsize=small)
        axis.set_yticks(range(count), [f'{name} ({n})' for name, n in zip(names, images)], fontsize=small)
        axis.tick_params(length=0)
        axis.set(title=_label(found.run.name), xlabel='said', ylabel='true (test images)')
        bar = figure.colorbar(drawn, ax=axis, shrink=0.6, pad=0.02)
        bar.set_label('% of the true class', fontsize=8)
        bar.ax.tick_params(labelsize=8)
        bar.outline.set_visible(False)
        return save_figure(figure, Path(path))


def draw_class_aps(found: list[ClassAP], path: str | Path) -> Path:
    """Write bars of the AP of each class, one colour a run, as PNG; the runs are of the same classes.

    Box AP are bars, mask AP ticks. Ordered by the first run's box AP.
    """
    first = found[0]
    kind = next(iter(first.figures))
    ap = [-1.0 if pair[0] is None else pair[0] for pair in first.figures[kind]]
    order = [int(i) for i in np.argsort(ap, kind='stable') if first.boxes[i]]
    cut = len(order) > BARS
    if cut:
        order = [*order[: BARS // 2], *order[-BARS // 2 :]]
    height = 0.8 / len(found)
    with plt.rc_context({**style(), 'axes.grid.axis': 'x'}):
        size = (6.2, 1.1 + len(order) * max(0.19, 0.11 * len(found)) + 0.18 * len(found))
        figure, axis = plt.subplots(figsize=size, layout='constrained')
        handles = []
        for number, item in enumerate(found):
            places = np.arange(len(order)) + (len(found) / 2 - 0.5 - number) * height
            colour = ARM_COLOURS[number % len(ARM_COLOURS)]
            for other, pairs in item.figures.items():
                values = [np.nan if pairs[i][0] is None else pairs[i][0] for i in order]
                text = f'{_label(item.run.name)}, {KINDS[other]} AP'
                if other == kind:
                    handles.append(axis.barh(places, values, height, color=colour, alpha=0.75, label=text))
                else:
                    look = dict(marker='|', linestyle='none', markersize=7, markeredgewidth=1.8)
                    handles += axis.plot(values, places, color=colour, label=text, **look)
        axis.set_yticks(
            range(len(order)), [f'{_label(first.classes[i])} ({first.boxes[i]})' for i in order], fontsize=8
        )
        axis.set(title='AP by class', xlabel='per cent', ylabel='class (boxes)')
        axis.set_xlim(0, max(1.0, axis.get_xlim()[1]))
        axis.set_ylim(-0.6, len(order) - 0.4)
        if cut:
            axis.axhline(BARS / 2 - 0.5, color='#98a2b3', linewidth=0.8, linestyle='--')
        figure.legend(handles=handles, loc='outside lower center', ncols=min(2, len(found)), fontsize=7)
        return save_figure(figure, Path(path))
