"""``quality.jsonl``: one JSON object a measurement, at most one for an iteration and a protocol.

Keys: ``schema`` 1, ``iter`` (finished iterations), ``epoch`` (finished epochs; null where the loop counts iterations
only), ``protocol`` (which settings and images: only equal ones are compared), ``source`` ('hook' or 'watch'), ``file``
(of the checkpoint: name, size, mtime_ns; null for the hook), ``knn_top1`` and ``probe_top1`` (per cent of the test
images), ``knn`` and ``probe`` (what was chosen, and the held-out accuracy that it was chosen by), ``images``,
``classes``, ``seconds``, ``device``, ``time`` (seconds since 1970).

The file is replaced as a whole under a lock on its folder, so that a run and a watcher may write to it side by side,
and a kill leaves the old file or the new one.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mim_mm import files

FILE_NAME = 'quality.jsonl'


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)  # and with it the lock


def read_quality(work_dir: str | Path) -> list[dict]:
    """The measurements of a run by iteration; what is no measurement is passed over; empty without a file."""
    rows = files.read_rows(Path(work_dir) / FILE_NAME)
    return sorted((row for row in rows if isinstance(row.get('iter'), int)), key=lambda row: row['iter'])


def add_quality(work_dir: str | Path, row: dict) -> None:
    """Add a measurement; one of the same ``iter`` and ``protocol`` gives way to it."""
    folder = Path(work_dir)
    with _locked(folder):
        key = (row['iter'], row['protocol'])
        others = [r for r in read_quality(folder) if (r['iter'], r.get('protocol')) != key]
        rows = [*others, dict(schema=1, **row)]
        files.write_rows(folder / FILE_NAME, sorted(rows, key=lambda row: row['iter']))


def drop_after(work_dir: str | Path, done: int) -> Path | None:
    """Take out the measurements after iteration ``done``: of an earlier run, or of steps that are trained again.

    Returns:
        Where the whole file as it was is kept, ``quality.old-N.jsonl``; None when there was nothing to take out.
    """
    folder = Path(work_dir)
    with _locked(folder):
        rows = read_quality(folder)
        kept = [row for row in rows if row['iter'] <= done] if done else []
        if len(kept) == len(rows):
            return None
        number = 1
        while (folder / f'quality.old-{number}.jsonl').exists():
            number += 1
        backup = folder / f'quality.old-{number}.jsonl'
        files.write_bytes(backup, (folder / FILE_NAME).read_bytes())
        files.write_rows(folder / FILE_NAME, kept)
        return backup
