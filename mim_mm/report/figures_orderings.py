"""Pictures of a chain's arms: every arm beside the controls, and figures along a value that several arms vary.

A chain names both in its config: ``controls`` are arms that stand as lines in every picture (the random encoder, raw
pixels), ``series`` are ``dict(title=..., x=..., lines={name: {value: arm}})``.
"""

from __future__ import annotations

from pathlib import Path
from statistics import mean, stdev

from mim_mm.report.collect import Chain
from mim_mm.report.figures import ARM_COLOURS, plt, save_figure, style
from mim_mm.report.orderings import FIGURES, figures_of

__all__ = ['draw_arms', 'draw_series', 'ordering_pictures']

CONTROL = '#667085'
DASHES = ('--', ':', '-.')


def _controls(axis, values: dict, controls: list[str], upright: bool) -> None:
    """A line for the mean of each control arm, named at its end."""
    line = axis.axvline if upright else axis.axhline
    for i, arm in enumerate(arm for arm in controls if values.get(arm)):
        line(mean(values[arm].values()), color=CONTROL, linestyle=DASHES[i % len(DASHES)], linewidth=1.2, label=arm)


def _points(axis, place: float, found: dict, colour: str) -> None:
    """The seeds of an arm as small dots, their mean as a large one with the standard deviation."""
    values = list(found.values())
    axis.scatter(values, [place] * len(values), s=9, color=colour, alpha=0.45, linewidth=0, zorder=2)
    spread = stdev(values) if len(values) > 1 else 0.0
    axis.errorbar(mean(values), place, xerr=spread, fmt='o', markersize=4, color=colour, capsize=2, linewidth=1.1)


def draw_arms(chain: Chain, path: Path) -> Path | None:
    """One row an arm, one panel a figure, controls as lines; None without a finished arm that is no control."""
    values = figures_of(chain)
    arms = [a for a in chain.arms if a not in chain.controls and any(a in found for found in values.values())]
    if not arms:
        return None
    with plt.rc_context(style()):
        size = (2.2 + 2.1 * len(values), 0.9 + 0.21 * len(arms))
        figure, axes = plt.subplots(1, len(values), figsize=size, squeeze=False, sharey=True, layout='constrained')
        for axis, (name, found) in zip(axes[0], values.items()):
            _controls(axis, found, chain.controls, upright=True)
            for i, arm in enumerate(arms):
                if found.get(arm):
                    _points(axis, i, found[arm], ARM_COLOURS[0])
            axis.set(title=FIGURES[name], xlabel='per cent', ylim=(len(arms) - 0.4, -0.6))
            axis.set_yticks(range(len(arms)), arms, fontsize=8)
        handles, labels = axes[0][0].get_legend_handles_labels()
        if handles:
            figure.legend(handles, labels, loc='outside lower right', ncols=len(handles), fontsize=8)
        return save_figure(figure, path)


def draw_series(chain: Chain, series: dict, path: Path) -> Path | None:
    """Mean and standard deviation of each figure along a value, a line a kind of arm; None where no arm is done.

    Args:
        series: ``dict(title=..., x=..., lines={name: {value: arm}})``; values stand at equal distances, in order.
    """
    lines = {name: {float(x): arm for x, arm in line.items()} for name, line in series['lines'].items()}
    values = figures_of(chain)
    shown = [f for f in values if any(values[f].get(arm) for line in lines.values() for arm in line.values())]
    if not shown:
        return None
    ticks = sorted({x for line in lines.values() for x in line})
    with plt.rc_context(style()):
        size = (max(3.4, 2.9 * len(shown)), 2.8)
        figure, axes = plt.subplots(1, len(shown), figsize=size, squeeze=False, layout='constrained')
        for axis, name in zip(axes[0], shown):
            _controls(axis, values[name], chain.controls, upright=False)
            for (label, line), colour in zip(lines.items(), ARM_COLOURS):
                found = [(ticks.index(x), list(values[name].get(line[x], {}).values())) for x in sorted(line)]
                found = [(place, each) for place, each in found if each]
                if found:
                    middle = [mean(each) for _, each in found]
                    spread = [stdev(each) if len(each) > 1 else 0.0 for _, each in found]
                    look = dict(fmt='o-', markersize=4, capsize=2, color=colour, label=label)
                    axis.errorbar([place for place, _ in found], middle, spread, **look)
            axis.set_xticks(range(len(ticks)), [f'{x:g}' for x in ticks])
            axis.set(title=FIGURES[name], xlabel=series['x'], ylabel='per cent')
        handles, labels = axes[0][0].get_legend_handles_labels()
        figure.legend(handles, labels, loc='outside lower center', ncols=min(6, len(handles)), fontsize=8)
        figure.suptitle(series['title'], fontsize=10)
        return save_figure(figure, path)


def ordering_pictures(chain: Chain, folder: Path) -> list[tuple[Path, str]]:
    """All pictures that the chain asks for and has runs for, as (PNG, caption); none for a chain that names none."""
    if not (chain.controls or chain.series):
        return []
    lines = f' Lines: {", ".join(chain.controls)}.' if chain.controls else ''
    said = f'Dots: runs, and mean ± sample standard deviation.{lines}'
    drawn = [(draw_arms(chain, folder / 'arms.png'), said)]
    for i, series in enumerate(chain.series):
        drawn.append((draw_series(chain, series, folder / f'series_{i}.png'), f'{series["title"]}. {said}'))
    return [(path, caption) for path, caption in drawn if path is not None]
