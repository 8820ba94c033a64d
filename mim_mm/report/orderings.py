"""Orderings that a chain claims: arm by arm and seed by seed, with paired intervals, and a verdict for each figure.

A chain says them in its config (``orderings``); :mod:`mim_mm.report.intervals` has the rule of judging.
"""

from __future__ import annotations

from statistics import mean, stdev

from mim_mm.report.collect import Chain
from mim_mm.report.document import Cell, Heading, Table, Text
from mim_mm.report.intervals import CONFIDENCE, LEAST, RULE, Paired, paired
from mim_mm.report.tables import METRICS, metric_of
from mim_mm.report.tables_probe import knn_top1

__all__ = ['FIGURES', 'figure_table', 'figures_of', 'judge', 'ordering_blocks', 'orderings_table']

# name in a chain's config -> title; the k-NN stands first because it trains nothing
FIGURES = dict(knn='k-NN', probe='quick probe', linear='linear', finetune='fine-tune', box='box AP', mask='mask AP')
_METRIC = dict(probe='probe_top1', linear='linear_top1', finetune='finetune_top1', box='bbox_mAP', mask='segm_mAP')
HOLDS, REVERSED, OPEN = 'holds', 'does not: the reverse', 'cannot be told'
Values = dict[str, dict[int, float]]


def figures_of(chain: Chain) -> dict[str, Values]:
    """``{figure: {arm: {seed: per cent}}}`` of the runs that are done, without figures that no run has."""
    known = {metric.name: metric for metric in METRICS}
    found: dict[str, Values] = {name: {} for name in FIGURES}
    for run in chain.runs:
        if not run.done or run.arm is None:
            continue
        neighbours = knn_top1(run)
        if neighbours is not None and 'mean' in neighbours[1]:
            found['knn'].setdefault(run.arm, {})[run.seed] = neighbours[1]['mean']
        for figure, name in _METRIC.items():
            value = metric_of(run, known[name]) if run.kind == known[name].kind else None
            if value is not None:
                found[figure].setdefault(run.arm, {})[run.seed] = value
    return {figure: values for figure, values in found.items() if values}


def judge(pair: Paired) -> str:
    """``holds`` where the interval of ``better - worse`` lies above zero, its reverse below, else it cannot be told."""
    if pair.n < LEAST or pair.low is None or pair.std <= 1e-9:
        return OPEN
    return HOLDS if pair.low > 0 else REVERSED if pair.high < 0 else OPEN


def _signed(value: float) -> str:
    return f'{value:+.1f}'.replace('-', '−')


def orderings_table(chain: Chain, part: str | None = None) -> Table:
    """One row for each claim and figure: difference, interval, seeds of both arms, verdict, and what was published."""
    values = figures_of(chain)
    rows = []
    for item in chain.orderings:
        if part is not None and item.get('part') != part:
            continue
        better, worse = item['better'], item['worse']
        for figure in item.get('figures') or FIGURES:
            arms = values.get(figure, {})
            if not item.get('figures') and not (better in arms and worse in arms):
                continue
            pair = paired(arms.get(better, {}), arms.get(worse, {}))
            said = judge(pair)
            interval = '–' if pair.low is None else f'{_signed(pair.low)} to {_signed(pair.high)}'
            state = {HOLDS: 'good', REVERSED: 'bad'}.get(said, 'quiet')
            rows.append([
                Cell(item['claim']), Cell(f'{better} − {worse}'), Cell(FIGURES[figure]),
                Cell('–' if pair.mean is None else _signed(pair.mean), 'strong'), Cell(interval), Cell(str(pair.n)),
                Cell(said, state), Cell(str(item.get('published') or '–'), 'quiet'),
            ])  # fmt: skip
    header = ['claim', 'arms', 'figure', 'points', f'{CONFIDENCE:.0%} interval', 'seeds', 'verdict', 'published']
    return Table(header, rows, 'Differences paired by seed.', numeric=False)


def figure_table(chain: Chain, arms: list[str] | None = None) -> Table:
    """One row an arm: mean ± sample standard deviation (n) of every figure."""
    values = figures_of(chain)
    rows = []
    for arm in arms or [arm for arm in chain.arms if any(arm in found for found in values.values())]:
        cells = [Cell(_spread(values[figure].get(arm, {}).values())) for figure in values]
        rows.append([Cell(arm, 'strong'), *cells])
    return Table(['arm', *(FIGURES[f] for f in values)], rows, 'Per cent. Mean ± sample standard deviation (runs).')


def _spread(values) -> str:
    values = list(values)
    if not values:
        return '–'
    return f'{mean(values):.1f}' + (f' ± {stdev(values):.1f}' if len(values) > 1 else '') + f' ({len(values)})'


def ordering_blocks(chain: Chain) -> list:
    """What the page says of the claims, part by part; nothing for a chain that claims nothing."""
    if not chain.orderings:
        return []
    blocks = [Heading('Orderings'), Text(RULE), figure_table(chain)]
    parts = dict.fromkeys(item.get('part') for item in chain.orderings)
    for part in parts:
        if part is not None:
            blocks.append(Heading(str(part)))
        blocks.append(orderings_table(chain, part) if part is not None else orderings_table(chain))
    return blocks
