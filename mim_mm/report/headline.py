"""What a reader looks at first: every arm's figures with their spread, and what pretraining changed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from mim_mm.report.collect import Chain
from mim_mm.report.document import Cell, Table, Text
from mim_mm.report.intervals import CONFIDENCE, RULE, interval, paired, verdict
from mim_mm.report.recipe import resolved
from mim_mm.report.tables import HEADLINE, METRICS, metric_of, published_entries, summarise

__all__ = ['arms_table', 'from_scratch_blocks', 'interval_note']

CLASSIFICATION = ('probe', 'linear', 'finetune')


def signed(value: float) -> str:
    return f'{value:+.1f}'.replace('-', '−')


def interval_note(values: Iterable[float]) -> str:
    """The interval of a mean, and how many runs it is of."""
    values = list(values)
    found = interval(values)
    if found is None:
        return 'one run' if values else ''
    return f'{CONFIDENCE:.0%}: {found[0]:.1f} to {found[1]:.1f}, n = {len(values)}'


def _classes(config: Any) -> int | None:
    """``num_classes`` wherever a resolved model states it; None where it does not, or says two things."""
    found, waiting = set(), [config]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            found |= {value for key, value in part.items() if key == 'num_classes' and isinstance(value, int)}
            waiting += part.values()
        elif isinstance(part, list):
            waiting += part
    return found.pop() if len(found) == 1 else None


def _guessing(chain: Chain, used: list) -> list[list[Cell]]:
    """A row of what guessing would give, for data with which no published figure can stand beside ours."""
    counts = {}
    for kind in CLASSIFICATION:
        for run in chain.of(kind, done=True):
            count = _classes((resolved(run) or {}).get('model'))
            if count and count > 1:
                counts.setdefault(kind, count)
    if not counts:
        return []
    classes = ' or '.join(map(str, dict.fromkeys(counts.values())))
    cells = [Cell(f'{100 / counts[m.kind]:.1f}' if m.kind in counts else '–', 'quiet') for m in used]
    return [[Cell(f'baseline: guessing one of {classes} classes that are equally frequent', 'quiet'), *cells]]


def arms_table(chain: Chain) -> Table:
    """One row an arm; below, one row a published method (the nearest to each pretraining, and others of its epochs), or
    where nothing is published what guessing gives."""
    used = [m for m in METRICS if chain.of(m.kind)]
    rows = []
    for arm in chain.arms:
        cells = []
        for metric in used:
            summary = summarise(chain, metric, arm)
            state = 'strong' if summary.values else 'bad' if summary.states else 'quiet'
            cells.append(Cell(str(summary), state, interval_note(summary.values) if metric.name in HEADLINE else ''))
        rows.append([Cell(arm, 'strong'), *cells])
    published = published_entries(chain)
    for _, entry in published:
        values = [entry['values'].get(m.name) for m in used]
        texts = [Cell('–' if v is None else f'{v:.1f}', 'quiet') for v in values]
        label = f'published: {entry["label"]} [{entry["source"]}]'
        label = f'nearest {label}' if entry['differs'] else label
        rows.append([Cell(label, 'quiet', folded=tuple(entry['differs'])), *texts])
    rows += [] if published else _guessing(chain, used)
    return Table(
        ['arm', *(m.title for m in used)],
        rows,
        'Per cent, AP too. Mean ± sample standard deviation over seeds, below it the '
        f'{CONFIDENCE:.0%} t interval of the mean; a single number is one run, of whose spread nothing is known.',
    )


def _by_seed(chain: Chain, metric, arm: str) -> dict:
    values = {run.seed: metric_of(run, metric) for run in chain.of(metric.kind, arm)}
    return {seed: value for seed, value in values.items() if value is not None}


def from_scratch_blocks(chain: Chain) -> list:
    """Pretrained minus scratch as it came out, with intervals, and the caution it needs; nothing without both arms."""
    if len(chain.arms) < 2 or 'scratch' not in chain.arms:
        return []
    rows = []
    for metric in METRICS:
        base = _by_seed(chain, metric, 'scratch')
        for arm in chain.arms if metric.name in HEADLINE and base else ():
            values = _by_seed(chain, metric, arm)
            if arm == 'scratch' or not values:
                continue
            pair = paired(values, base)
            said = verdict(pair, arm, 'scratch')
            range_ = '–' if pair.low is None else f'{signed(pair.low)} to {signed(pair.high)}'
            mean = '–' if pair.mean is None else signed(pair.mean)
            cells = [Cell(metric.title), Cell(f'{arm} − scratch'), Cell(mean, 'strong'), Cell(range_)]
            rows.append([*cells, Cell(str(pair.n)), Cell(said, 'strong' if said.endswith('better') else 'quiet')])
    if not rows:
        return []
    head = ['figure', 'arms', 'difference', f'{CONFIDENCE:.0%} interval', 'seeds', 'what may be said']
    caption = 'Points, paired by seed. In the probes, scratch is a frozen random encoder.'
    text = (
        'Whether pretraining raises a figure is reported as it comes out; a difference between single runs says little.'
    )
    return [Table(head, rows, caption, numeric=False), Text(f'{text} {RULE}', 'quiet')]
