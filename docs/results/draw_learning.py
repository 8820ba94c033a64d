"""The table of learning.md and its picture, from learning.csv:  python docs/results/draw_learning.py"""

from __future__ import annotations

import csv
from itertools import groupby
from pathlib import Path

from mim_mm.report.figures import ARM_COLOURS, plt, save_figure, style

HERE = Path(__file__).resolve().parent
KEYS = ('method', 'recipe', 'settings', 'queries')
POOLINGS = {'cls': 'class token', 'mean': 'mean of patches', 'both': 'both'}
BEGIN, END = '<!-- table -->', '<!-- end -->'


def read(path: Path = HERE / 'learning.csv') -> list[tuple[dict, list[dict]]]:
    """Each run: what it is, and its rows in the order of images seen, the random encoder first."""
    with path.open(newline='') as file:
        rows = list(csv.DictReader(file))
    runs = groupby(rows, key=lambda row: {key: row[key] for key in KEYS})
    return [(about, list(found)) for about, found in runs]


def table(runs: list[tuple[dict, list[dict]]]) -> str:
    """Markdown: a row a run, its random encoder and its last checkpoint, and their difference."""
    lines = [
        '| method | settings | images seen | class token | mean of patches | both | gain | test images |',
        '|---|---|---:|---|---|---|---|---:|',
    ]
    for about, rows in runs:
        start, last = rows[0], rows[-1]
        pairs = {key: (float(start[key]), float(last[key])) for key in POOLINGS if last[key]}
        shown = [f'{pairs[key][0]:.1f} → {pairs[key][1]:.1f}' if key in pairs else '' for key in POOLINGS]
        gains = ', '.join(f'{after - before:+.1f}'.replace('-', '−') for before, after in pairs.values())
        settings = about['settings'] or f'`evidence/{about["recipe"]}.py`'
        cells = [about['method'], settings, f'{int(last["images"]):,}', *shown, gains, f'{int(about["queries"]):,}']
        lines.append(f'| {" | ".join(cells)} |')
    return '\n'.join(lines)


def filled(text: str, runs: list[tuple[dict, list[dict]]]) -> str:
    """``text`` with the table between its marks."""
    head, rest = text.split(BEGIN)
    return f'{head}{BEGIN}\n\n{table(runs)}\n\n{rest[rest.index(END) :]}'


def draw(runs: list[tuple[dict, list[dict]]], path: Path) -> Path:
    """k-NN of every recipe over the images seen, one panel each; settings that were given up are in the table alone."""
    runs = [run for run in runs if not run[0]['settings']]
    with plt.rc_context(style()):
        columns = 4
        rows = -(-len(runs) // columns)
        figure, axes = plt.subplots(
            rows, columns, figsize=(9, 1.9 * rows + 0.4), squeeze=False, sharey=True, layout='constrained'
        )
        for axis, (about, found) in zip(axes.flat, runs, strict=False):
            for (key, name), colour in zip(POOLINGS.items(), ARM_COLOURS, strict=False):
                points = [(int(row['images']) / 1000, float(row[key])) for row in found if row[key]]
                if points:
                    axis.plot(*zip(*points, strict=True), marker='o', markersize=3, color=colour, label=name)
            axis.set(title=about['method'], xlim=(-8, 210))
        for axis in list(axes.flat)[len(runs) :]:
            axis.axis('off')
        figure.supxlabel('images seen (thousands)', fontsize=9)
        figure.supylabel('k-NN top-1 (%)', fontsize=9)
        figure.legend(*axes[0][0].get_legend_handles_labels(), loc='outside lower right', ncols=3, fontsize=8)
        return save_figure(figure, path)


if __name__ == '__main__':
    found = read()
    page = HERE / 'learning.md'
    page.write_text(filled(page.read_text(), found))
    draw(found, HERE.parent / 'images' / 'learning.png')
