"""The quick probe's choice: which head won on held-out training images, and what it does on the test images."""

from __future__ import annotations

from mim_mm import files
from mim_mm.report.collect import Chain, Run
from mim_mm.report.document import Cell, Table

__all__ = ['knn_top1', 'probe_table']


def _per_cent(value) -> str:
    return f'{value:.1f}' if isinstance(value, (int, float)) and not isinstance(value, bool) else '–'


def knn_top1(run: Run) -> tuple[int, dict] | None:
    """``(k, {'cls': top-1, 'mean': top-1})`` in per cent, from the run's ``knn.json``; None when there is none.

    k is 20, DINO's, or the least measured where that is missing: nothing is chosen by the accuracies shown.
    """
    path = run.artifacts.get('knn')
    try:
        accuracy = files.read_json(path)['accuracy']
        ks = [int(k) for k in next(iter(accuracy.values()))]
        k = 20 if 20 in ks else min(ks)
        return k, {name: float(found[str(k)]['top1']) for name, found in accuracy.items()}
    except (AttributeError, OSError, ValueError, KeyError, TypeError, StopIteration):  # absent, damaged or another file
        return None


def knn_text(run: Run) -> str | None:
    """``class token 40.1, mean patch 52.3 (k = 20)``; None where :func:`knn_top1` is."""
    found = knn_top1(run)
    if found is None:
        return None
    titles = dict(cls='class token', mean='mean patch')
    return f'{", ".join(f"{titles[n]} {found[1][n]:.1f}" for n in titles if n in found[1])} (k = {found[0]})'


def probe_table(chain: Chain) -> Table | None:
    """One row a finished quick probe: head, held-out and test accuracy, k-NN where there is one; None without any."""
    runs = chain.of('probe', done=True)
    if not runs:
        return None
    neighbours = [knn_text(run) for run in runs]
    header = ['quick probe', 'arm', 'chosen head', 'of', 'held-out top-1', 'test top-1']
    rows = []
    for run, found in zip(runs, neighbours):
        metrics = run.raw.get('metrics') or {}
        heads = metrics.get('probe/num_heads')
        cells = [Cell(run.name, 'strong'), Cell(run.arm or '–'), Cell(str(metrics.get('probe/best_head') or '–'))]
        cells.append(Cell(f'{heads:.0f} heads' if isinstance(heads, (int, float)) else '–'))
        cells += [Cell(_per_cent(metrics.get('probe/held_out_top1'))), Cell(_per_cent(metrics.get('accuracy/top1')))]
        rows.append([*cells, Cell(found or '–')] if any(neighbours) else cells)
    return Table(
        [*header, 'k-NN test top-1'] if any(neighbours) else header,
        rows,
        'Per cent. The head was chosen on images held out of the training folder; the test images are read off only. '
        'A name says blocks, pooling, bn for BatchNorm, and the learning rate for 256 images.',
        numeric=False,
    )
