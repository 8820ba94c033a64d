"""Arms side by side: every seed a point, mean and spread beside them."""

from __future__ import annotations

from pathlib import Path
from statistics import mean, stdev

from mim_mm.report.figures import ARM_COLOURS, plt, save_figure, style

__all__ = ['draw_comparison', 'panel_points']

ACROSS = 3  # panels in a row
REACH = 0.16  # half the width over which the seeds of an arm are spread


def panel_points(values: dict) -> dict:
    """``{arm: [(x, seed, value), ...]}``; arms stand at 0, 1, 2 ..., the same seed at the same place in each.

    Args:
        values: arm -> seed -> value.
    """
    seeds = sorted({seed for found in values.values() for seed in found})
    step = 2 * REACH / max(1, len(seeds) - 1)
    shift = {seed: -REACH + i * step if len(seeds) > 1 else 0.0 for i, seed in enumerate(seeds)}
    return {arm: [(i + shift[s], s, found[s]) for s in sorted(found)] for i, (arm, found) in enumerate(values.items())}


def _panel(axis, title: str, values: dict) -> None:
    placed = panel_points(values)
    for seed in sorted({seed for found in values.values() for seed in found}):
        line = [(x, value) for points in placed.values() for x, s, value in points if s == seed]
        axis.plot(*zip(*line), color='#cbd2dd', linewidth=0.8, zorder=1)
    for i, points in enumerate(placed.values()):
        colour, found = ARM_COLOURS[i % len(ARM_COLOURS)], [value for _, _, value in points]
        if not found:
            axis.text(i, 0.5, 'no run', transform=axis.get_xaxis_transform(), ha='center', color='#b42318', fontsize=8)
            continue
        axis.scatter([x for x, _, _ in points], found, s=22, color=colour, edgecolor='white', linewidth=0.6, zorder=3)
        middle = mean(found)
        axis.hlines(middle, i - 0.3, i + 0.3, color=colour, linewidth=1.8, zorder=2)
        if len(found) > 1:
            axis.errorbar(i + 0.3, middle, stdev(found), color=colour, capsize=3, linewidth=1.2, zorder=2)
        axis.annotate(f'{middle:.1f}', (i + 0.3, middle), (5, 0), textcoords='offset points', va='center', fontsize=8)
    names = [f'{arm}\nn = {len(points)}' for arm, points in placed.items()]
    axis.set(title=title, xlim=(-0.5, len(placed) - 0.3), ylabel='per cent')
    axis.set_xticks(range(len(placed)), names, fontsize=8)
    axis.grid(False, axis='x')
    axis.margins(y=0.15)


def draw_comparison(columns: list, path: Path) -> Path | None:
    """One panel a figure; None when no run has a value.

    Args:
        columns: ``(recipe, metric, title, {arm: {seed: value}})``, as ``comparison.columns`` gives them.
    """
    panels = [(title, values) for _, _, title, values in columns if any(values.values())]
    if not panels:
        return None
    across = min(ACROSS, len(panels))
    down = -(-len(panels) // across)
    arms = max(len(values) for _, values in panels)
    with plt.rc_context(style()):
        size = (across * max(3.2, 0.95 * arms + 0.8), 2.9 * down)
        figure, axes = plt.subplots(down, across, figsize=size, squeeze=False, layout='constrained')
        for axis, (title, values) in zip(axes.flat, panels):
            _panel(axis, title, values)
        for axis in axes.flat[len(panels) :]:
            axis.set_visible(False)
        return save_figure(figure, path)
