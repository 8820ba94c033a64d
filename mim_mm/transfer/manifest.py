"""``run.json``: what one stage was made from, how it went and what came out; the report reads nothing else.

Every file here is written to a temporary name in the same folder, synced to the disk and renamed. Written in place, a
power cut or a full disk in the middle would leave half a manifest, and with it a finished 800-epoch run that nobody can
tell from an unfinished one.
"""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from mim_mm import files
from mim_mm.transfer.words import Status

SCHEMA = 1
RUN_FILE = 'run.json'


def utc_now() -> str:
    """The time in ISO format, UTC, to the second."""
    return datetime.now(timezone.utc).strftime('%Y-%m-%dT%H:%M:%SZ')


def seconds_since(moment: str) -> float:
    """Seconds from a moment written by :func:`utc_now` until now (0 at least)."""
    started = datetime.strptime(moment, '%Y-%m-%dT%H:%M:%SZ').replace(tzinfo=timezone.utc)
    return max(0.0, (datetime.now(timezone.utc) - started).total_seconds())


def write_json(path: str | Path, content: Any) -> None:
    """Write json so that a reader finds either the old file or the whole new one, whatever happens in between.

    Raises:
        OSError: the disk is full or read-only; the old file, if any, is still there.
    """
    files.write_json(path, content, default=str)


class DamagedManifest(Exception):
    """A ``run.json`` that is there but cannot be used; the message names the file and what is wrong with it."""


@dataclass
class Record:
    """One ``run.json``. Paths in it are relative to its folder, except ``config`` and the parent's checkpoint."""

    chain: str
    stage: str
    kind: str
    arm: str
    seed: int
    status: Status
    schema: int = SCHEMA
    config: dict[str, Any] = field(default_factory=dict)  # path, sha256 of what is learned, options
    parent: dict[str, Any] | None = None  # stage, checkpoint, sha256
    git: dict[str, Any] = field(default_factory=dict)
    code: dict[str, dict[str, str]] | None = None  # of the user: {module: {file, sha256}}; None: not known
    data: dict[str, Any] = field(default_factory=dict)
    seeds: dict[str, int] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    device: str | None = None
    started: str | None = None
    finished: str | None = None
    wall_s: float = 0.0  # all attempts together
    command: list[str] = field(default_factory=list)
    exit_code: int | None = None
    error: str | None = None
    metrics: dict[str, Any] = field(default_factory=dict)
    progress: dict[str, Any] = field(default_factory=dict)
    scalars: str | None = None
    checkpoint: str | None = None
    artifacts: dict[str, str] = field(default_factory=dict)
    artifact_errors: dict[str, str] = field(default_factory=dict)
    gpus: int = 0
    process: dict[str, Any] | None = None  # pid, started, host of the running stage: see process.py
    attempts: list[dict[str, Any]] = field(default_factory=list)  # started, finished, status, resumed_from, exit_code

    def write(self, folder: str | Path) -> None:
        write_json(Path(folder) / RUN_FILE, dataclasses.asdict(self))


def read_record(folder: str | Path) -> Record | None:
    """The record of a stage folder, or None when the stage has never run.

    Raises:
        DamagedManifest: the file is not json, is of another schema, or lacks what every record has.
    """
    path = Path(folder) / RUN_FILE
    try:
        content = files.read_json(path, 'run the stage again')
    except FileNotFoundError:
        return None
    except files.DamagedFile as error:
        raise DamagedManifest(str(error)) from error
    if not isinstance(content, dict):
        raise DamagedManifest(f'{path} holds a {type(content).__name__}, not a record')
    if content.get('schema') != SCHEMA:
        raise DamagedManifest(f'{path} has schema {content.get("schema")!r}; this version reads schema {SCHEMA}')
    known = {f.name: f for f in dataclasses.fields(Record)}
    missing = [
        name
        for name, f in known.items()
        if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING and name not in content
    ]
    if missing:
        raise DamagedManifest(f'{path} lacks {", ".join(missing)}')
    if content['status'] not in list(Status):
        raise DamagedManifest(f'{path} has status {content["status"]!r}; known: {", ".join(Status)}')
    content['status'] = Status(content['status'])
    # Keys of a later version of the same schema are left alone rather than refused.
    return Record(**{name: value for name, value in content.items() if name in known})


def tail(path: str | Path, lines: int = 15, limit: int = 4000) -> str:
    """The last lines of a log, for the ``error`` of a record; empty when there is no log."""
    try:
        with open(path, 'rb') as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - 64 * 1024))
            text = file.read().decode('utf-8', errors='replace')
    except OSError:
        return ''
    return '\n'.join(text.rstrip().splitlines()[-lines:])[-limit:]
