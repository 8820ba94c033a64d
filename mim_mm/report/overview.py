"""All chains below a folder: a list, an index page, and what differs between some of them."""

from __future__ import annotations

from pathlib import Path

from mim_mm import files
from mim_mm.report.collect import Chain, collect
from mim_mm.report.document import Cell, Table, full_text
from mim_mm.report.headline import interval_note
from mim_mm.report.html_page import render
from mim_mm.report.recipe import resolved
from mim_mm.report.superseded import candidates
from mim_mm.report.tables import HEADLINE, METRICS, summarise

__all__ = ['as_text', 'chains_table', 'compare_table', 'find_chains', 'megabytes', 'superseded_table', 'write_index']

DEPTH = 3  # folders below the root in which a chain is looked for
MOST_DIFFERENCES = 200


def find_chains(root: str | Path) -> list[Chain]:
    """Every chain below a folder, itself included, by path; a chain's own runs hold none.

    Raises:
        FileNotFoundError: there is none.
    """
    root = Path(root)
    found: list[Path] = []
    for depth in range(DEPTH + 1):
        for record in sorted(root.glob('/'.join(['*'] * depth + ['chain.json']))):
            folder = record.parent
            hidden = any(part.startswith('.') for part in folder.relative_to(root).parts)
            if not hidden and not any(folder.is_relative_to(other) for other in found if other != root):
                found.append(folder)
    if not found:
        raise FileNotFoundError(
            f'{root} holds no chain (a folder with a chain.json, up to {DEPTH} folders down): give the folder that '
            'holds the work dirs of tools/transfer.py'
        )
    return [collect(folder) for folder in sorted(found)]


def name_of(chain: Chain, root: Path) -> str:
    """The folder of a chain as the list names it."""
    return chain.name if chain.folder == root else chain.folder.relative_to(root).as_posix()


def megabytes(size: int) -> str:
    return f'{size / 1e6:,.1f} MB'


def _state(chain: Chain) -> Cell:
    runs = [run for run in chain.runs if run.kind != 'report' and run.status != 'skipped']
    done = sum(run.done for run in runs)
    failed = sum(run.status == 'failed' for run in runs)
    word = 'done' if done == len(runs) else 'failed' if failed else 'not done'
    return Cell(word, 'good' if word == 'done' else 'bad' if failed else 'quiet', note=f'{done} of {len(runs)} runs')


def _finished(chain: Chain) -> str:
    return max((str(run.raw.get('finished') or '') for run in chain.runs), default='')[:16].replace('T', ' ') or '–'


def chains_table(chains: list[Chain], root: str | Path) -> Table:
    """One row a chain and arm, with its figures as mean ± sample standard deviation."""
    root = Path(root)
    used = [m for m in METRICS if m.name in HEADLINE and any(chain.of(m.kind) for chain in chains)]
    rows = []
    for chain in chains:
        wanted = [('page', 'report.html'), ('chain.json', 'chain.json')]
        there = [(name, chain.folder / path) for name, path in wanted if (chain.folder / path).is_file()]
        links = tuple((name, path.relative_to(root).as_posix()) for name, path in there)
        for arm in chain.arms or ['']:
            figures = []
            for metric in used:
                summary = summarise(chain, metric, arm) if arm else None
                text = '–' if summary is None or not summary.expected else str(summary)
                note = interval_note(summary.values) if summary else ''
                figures.append(Cell(text, '' if summary and summary.values else 'quiet', note))
            row = [Cell(name_of(chain, root), 'strong'), Cell(arm or '–'), _state(chain), *figures]
            rows.append([*row, Cell(_finished(chain)), Cell('', files=links)])
    head = ['chain', 'arm', 'status', *(metric.title for metric in used), 'finished (UTC)', 'files']
    caption = 'Per cent, AP too: mean ± sample standard deviation over seeds, and the 95% t interval of the mean.'
    return Table(head, rows, caption, numeric=False)


def superseded_table(chains: list[Chain], root: str | Path) -> Table | None:
    """Runs that others took the place of, and whether they can go; None without any."""
    rows = []
    for item in candidates(chains):
        can = Cell('kept', 'quiet', folded=(item.kept,)) if item.kept else Cell('can be deleted')
        size = Cell(megabytes(item.size), key=item.size)
        rows.append([Cell(name_of(item.chain, Path(root))), Cell(item.run.name), Cell(item.run.status), size, can])
    caption = '`tools/runs.py ROOT --delete-superseded` lists them again, and deletes them with `--yes`.'
    return (
        Table(['chain', 'run', 'status', 'size', 'deletion'], rows, caption, numeric=False, small=True)
        if rows
        else None
    )


def _flat(value, before: str = '') -> dict:
    if not isinstance(value, (dict, list)) or not value:
        return {before: value}
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    return {k: v for name, item in pairs for k, v in _flat(item, f'{before}.{name}' if before else str(name)).items()}


def compare_table(chains: list[Chain], root: str | Path) -> Table:
    """Settings of the stages that all these chains have, where they differ; from the resolved configs of the runs."""
    configs = []
    for chain in chains:
        found = {run.name: resolved(run) for run in chain.runs if run.kind != 'report'}
        configs.append({name: _flat(config) for name, config in found.items() if config})
    shared = [name for name in configs[0] if all(name in other for other in configs)]
    rows = []
    for stage in shared:
        keys = dict.fromkeys(key for config in configs for key in config[stage])
        for key in keys:
            values = [repr(config[stage][key]) if key in config[stage] else '–' for config in configs]
            if len(set(values)) > 1:
                rows.append([Cell(stage), Cell(key), *map(Cell, values)])
    more = f' {len(rows) - MOST_DIFFERENCES} more are not shown.' if len(rows) > MOST_DIFFERENCES else ''
    caption = f'Stages of the same name in all of them: {", ".join(shared) or "none"}.{more}'
    head = ['stage', 'setting', *(name_of(chain, Path(root)) for chain in chains)]
    return Table(head, rows[:MOST_DIFFERENCES], caption, numeric=False, small=True)


def as_text(table: Table, only: str = '') -> str:
    """The rows that hold a text, columns aligned for a terminal; files are left to the page."""
    used = [i for i, title in enumerate(table.header) if title != 'files']
    rows = [[full_text(row[i]) for i in used] for row in table.rows]
    rows = [row for row in rows if only.lower() in ' '.join(row).lower()]
    if not rows:
        return 'none'
    rows = [[str(table.header[i]) for i in used], *rows]
    widths = [max(len(row[i]) for row in rows) for i in range(len(used))]
    return '\n'.join('  '.join(text.ljust(width) for text, width in zip(row, widths)).rstrip() for row in rows)


def write_index(chains: list[Chain], root: str | Path) -> Path:
    """Write and return ``index.html`` in ``root``."""
    table, page = chains_table(chains, root), Path(root) / 'index.html'
    choices = {place: sorted({row[place].text for row in table.rows}) for place in (1, 2)}
    values = dict(title=f'Chains in {Path(root).resolve().name}', table=table, choices=choices)
    text = render('index.html', superseded=superseded_table(chains, root), pictures={}, **values)
    files.write_text(page, text, sync=False, errors='backslashreplace')
    return page
