"""Tables of a chain's results inside a hand-written document, between marks, so that they can be made again.

<!-- table: figures mae emae -->      one row for each of these arms (all without names)
<!-- table: orderings Masks -->       the claims of this part of the chain (all without a name)
<!-- table: curve mse emae_w1 ... --> a logged value over the epochs, mean over seeds, one row an arm
<!-- end -->
"""

from __future__ import annotations

import re
from pathlib import Path
from statistics import mean

from mim_mm.report.collect import Chain, collect, read_scalars
from mim_mm.report.document import Cell, Table, markdown_of
from mim_mm.report.orderings import figure_table, orderings_table

__all__ = ['curve_table', 'fill']

MARK = re.compile(r'(<!-- table: (?P<what>[^>]*?) -->\n).*?(<!-- end -->)', re.S)
POINTS = 8


def curve_table(chain: Chain, key: str, arms: list[str]) -> Table:
    """A logged value at equal shares of the training, mean over the seeds of each arm."""
    rows = []
    for arm in arms:
        series = [read_scalars(run.scalars).get(key) for run in chain.of('pretrain', arm, done=True)]
        series = [found[1] for found in series if found]
        if not series:
            rows.append([Cell(arm, 'strong'), *[Cell('–')] * POINTS])
            continue
        picks = []
        for point in range(1, POINTS + 1):
            picks.append(mean(values[round(point / POINTS * len(values)) - 1] for values in series))
        rows.append([Cell(arm, 'strong'), *(Cell(f'{value:.3f}') for value in picks)])
    header = ['share of the training', *(f'{point}/{POINTS}' for point in range(1, POINTS + 1))]
    return Table(header, rows, f'`{key}`, mean over seeds.')


def fill(text: str, work_dir: str | Path) -> str:
    """The document with the tables of the chain in ``work_dir`` between its marks.

    Raises:
        ValueError: there is no mark, or one that names no table.
    """
    chain = collect(work_dir)

    def table(match: re.Match) -> str:
        what, *names = match['what'].split()
        if what == 'figures':
            found = figure_table(chain, names or None)
        elif what == 'orderings':
            found = orderings_table(chain, ' '.join(names) or None)
        elif what == 'curve' and len(names) > 1:
            found = curve_table(chain, names[0], names[1:])
        else:
            raise ValueError(f"the mark 'table: {match['what']}' is none of figures, orderings, curve KEY ARM ...")
        return f'{match[1]}\n{markdown_of(found, Path(work_dir)).strip()}\n\n{match[3]}'

    filled, count = MARK.subn(table, text)
    if not count:
        raise ValueError('the document has no mark <!-- table: ... --> ... <!-- end -->, so there is nothing to fill')
    return filled
