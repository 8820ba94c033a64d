"""The quick probe's choice: which head won on held-out training images, and what it does on the test images."""

from __future__ import annotations

import json

from mim_mm.report.collect import Chain, Run
from mim_mm.report.document import Cell, Table

__all__ = ['probe_table']


def _per_cent(value) -> str:
    return f'{value:.1f}' if isinstance(value, (int, float)) and not isinstance(value, bool) else '–'


def knn_text(run: Run) -> str | None:
    """``class token 40.1, mean patch 52.3 (k = 20)`` from the run's ``knn.json``; None when there is none.

    k is 20, DINO's, or the least measured where that is missing: nothing is chosen by the accuracies shown.
    """
    path = run.artifacts.get('knn')
    try:
        accuracy = json.loads(path.read_text(encoding='utf-8'))['accuracy']
        ks = [int(k) for k in next(iter(accuracy.values()))]
        k = 20 if 20 in ks else min(ks)
        titles = dict(cls='class token', mean='mean patch')
        parts = [f'{titles[name]} {accuracy[name][str(k)]["top1"]:.1f}' for name in titles if name in accuracy]
    except (AttributeError, OSError, ValueError, KeyError, TypeError, StopIteration):  # absent, damaged or another file
        return None
    return f'{", ".join(parts)} (k = {k})'


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
