"""Accuracy against epoch during a pretraining, from ``quality.jsonl`` (mim_mm.QualityHook, tools/watch.py)."""

from __future__ import annotations

from pathlib import Path

from mim_mm import files
from mim_mm.report.collect import Chain
from mim_mm.report.figures import ARM_COLOURS, plt, save_figure, style

__all__ = ['draw_quality', 'quality_curves', 'read_rows']

LINES = (('probe_top1', 'best of the linear heads', '-', ARM_COLOURS[0]), ('knn_top1', 'k-NN', '--', ARM_COLOURS[1]))


def _number(value) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def read_rows(folder: str | Path) -> dict:
    """``{protocol: rows by iteration}`` of a work dir's ``quality.jsonl``; a damaged line is passed over."""
    groups: dict[str, list] = {}
    for row in files.read_rows(Path(folder) / 'quality.jsonl'):
        if all(_number(row.get(key)) for key in ('iter', 'knn_top1', 'probe_top1')):
            groups.setdefault(str(row.get('protocol')), []).append(row)
    return {name: sorted(rows, key=lambda row: row['iter']) for name, rows in groups.items()}


def draw_quality(folder: str | Path, path: str | Path) -> Path | None:
    """Draw the curves of one run as PNG; None when nothing was measured.

    The abscissa is the epoch where every row has one, else the iteration. Measurements of different protocols (other
    images or settings) are different lines, the first opaque.
    """
    groups = read_rows(folder)
    if not groups:
        return None
    rows = [row for group in groups.values() for row in group]
    unit = 'epoch' if all(_number(row.get('epoch')) for row in rows) else 'iter'
    with plt.rc_context(style()):
        figure, axis = plt.subplots(figsize=(4.6, 3.0), layout='constrained')
        for place, (protocol, group) in enumerate(groups.items()):
            for key, label, dash, colour in LINES:
                if len(groups) > 1:
                    label = f'{label} [{protocol[:6]}]'
                points = [row[unit] for row in group], [row[key] for row in group]
                axis.plot(
                    *points, dash, marker='o', markersize=4, color=colour, alpha=0.8**place / (1 + place), label=label
                )
        axis.set(title='Frozen features during pretraining', ylabel='test top-1 (%)')
        axis.set(xlabel='epoch' if unit == 'epoch' else 'iteration')
        axis.set_xlim(left=min(0, *(row[unit] for row in rows)))
        axis.margins(y=0.15)
        axis.legend()
        return save_figure(figure, Path(path))


def quality_curves(chain: Chain, folder: Path) -> list[tuple[Path, str]]:
    """(PNG, caption) of every pretraining run of a chain that was measured on the way."""
    drawn = []
    for run in chain.of('pretrain'):
        path = draw_quality(run.folder, folder / f'quality_{run.name}.png')
        if path is None:
            continue
        last = [group[-1] for group in read_rows(run.folder).values()][-1]
        images = last.get('images') if isinstance(last.get('images'), dict) else {}
        counts = f'{images.get("train", "?")} training and {images.get("test", "?")} test images'
        caption = (
            f'Pretraining `{run.name}`: accuracy of frozen features on the way ({counts}, {last.get("classes", "?")} '
            'classes, no augmentation), where the first point at 0 is the random encoder. Pooling, k and head are '
            'chosen on held-out training images.'
        )
        drawn.append((path, caption))
    return drawn
