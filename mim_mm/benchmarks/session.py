"""Measuring everything on a device that is lent for minutes: one process, one line of JSON flushed after each row.

A row that fails, or is cut off by the clock, says so in its line and the next begins; the next call makes those that
are missing. What is slow to start (imports, the device) is paid once.
"""

from __future__ import annotations

import contextlib
import json
import signal
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from mim_mm import files

ROWS, SUMMARY = 'rows.jsonl', 'summary.md'


@dataclass(frozen=True)
class Row:
    """One measurement.

    Attributes:
        name: a word, how it is asked for.
        part: 1 or 2; each fits into one call on a lent device.
        measure: (sizes, folder for its files, say) -> dict with ``text`` (Markdown) and, for the table at the end,
            ``headline`` (name -> figure); everything JSON-able.
    """

    name: str
    part: int
    measure: Callable[..., dict]


class OutOfTime(Exception):
    """The clock of the session; an ``Exception``, so that a row may end in order."""


def wanted(rows: Sequence[Row], part: int | None, only: Sequence[str]) -> list[Row]:
    """Those of a part, or those named.

    Raises:
        ValueError: a name that no row has.
    """
    unknown = sorted(set(only) - {row.name for row in rows})
    if unknown:
        raise ValueError(f'no row {", ".join(unknown)}; there are {", ".join(row.name for row in rows)}')
    return [row for row in rows if (row.name in only if only else part in (None, row.part))]


def run(
    rows: Sequence[Row], sizes: object, out: Path, seconds: float, say: Callable[[str], None], about: dict | None = None
) -> list[str]:
    """Measure what has no figures in ``out`` yet.

    Args:
        rows: in the order in which they are made.
        sizes: given to each.
        out: folder of ``rows.jsonl``; a line stays whatever happens afterwards.
        seconds: after that long the row at work is stopped (at its next line of Python) and none begins.
        about: kept in every line: machine, commit, command.

    Returns:
        names of the rows that have no figures now.
    """
    out.mkdir(parents=True, exist_ok=True)
    done = {line['row'] for line in read(out) if line['ok']}
    begin, left = time.monotonic(), []
    for row in rows:
        if row.name in done:
            continue
        rest = seconds - (time.monotonic() - begin)
        if rest <= 0:
            left.append(row.name)
            continue
        say(f'== {row.name}')
        line = _measured(row, sizes, out, rest, say)
        files.append_row(out / ROWS, dict(line, **(about or {})))
        if not line['ok']:
            left.append(row.name)
            say(f'{row.name} failed: {line["error"]}')
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    return left


def _measured(row: Row, sizes: object, out: Path, rest: float, say: Callable[[str], None]) -> dict:
    begin = time.monotonic()
    line: dict = dict(row=row.name, ok=True)
    try:
        with _clock(rest):
            figures = row.measure(sizes, out, say)
        line['figures'] = json.loads(json.dumps(figures, default=str))
    except Exception as error:
        text = f'{type(error).__name__}: {error}'.strip().splitlines()[0]
        line |= dict(ok=False, error=text, where=traceback.format_exc(limit=-4))
    line['seconds'] = round(time.monotonic() - begin, 1)
    return line


@contextlib.contextmanager
def _clock(seconds: float) -> Iterator[None]:
    """:class:`OutOfTime` after ``seconds`` of wall clock; systems without alarms have none."""
    if not hasattr(signal, 'setitimer'):
        yield
        return

    def ring(number, frame):
        raise OutOfTime(f'the {seconds:.0f} s that were left are over')

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def read(out: Path) -> list[dict]:
    """The lines that are there; a torn last one is left out."""
    return files.read_rows(out / ROWS)


def summary(rows: Sequence[Row], out: Path, targets: dict[str, float], title: str = 'One GPU, measured') -> str:
    """Markdown of the newest line of each row: figures beside their targets, then every table.

    Args:
        targets: headline -> the least that is wanted.
    """
    newest: dict[str, dict] = {}
    for line in read(out):
        if line['ok'] or not newest.get(line['row'], {}).get('ok'):
            newest[line['row']] = line
    made = [newest[row.name] for row in rows if row.name in newest]
    good = [line for line in made if line['ok']]
    figures = {name: value for line in good for name, value in line['figures'].get('headline', {}).items()}
    places = sorted({f'{line.get("machine")}; commit {line.get("commit")}; `{line.get("command")}`' for line in made})
    lines = [f'# {title}', '', *places, '', '| | measured | wanted | |', '|---|---|---|---|']
    for name, value in {**dict.fromkeys(targets), **figures}.items():
        aim, shown = targets.get(name), 'not measured' if value is None else f'{value:,.4g}'
        verdict = '' if aim is None or value is None else 'reached' if value >= aim else 'missed'
        lines.append(f'| {name} | {shown} | {"" if aim is None else f"{aim:,.4g}"} | {verdict} |')
    missing = [row.name for row in rows if not newest.get(row.name, {}).get('ok')]
    for name in missing:
        lines += ['', f'**{name}**: {newest[name]["error"] if name in newest else "not begun"}']
    for line in good:
        lines += ['', f'## {line["row"]} ({line["seconds"]:.0f} s)', '', line['figures'].get('text', '')]
    return '\n'.join(lines) + '\n'
