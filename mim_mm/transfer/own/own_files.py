"""The files that ``tools/transfer.py --images`` writes: never over one that the user has changed since."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from mim_mm.checkpoint.atomic import write_atomically
from mim_mm.transfer.chain import ChainError

RECORD = 'own_data.json'


def write_files(work_dir: Path, files: dict[str, str]) -> None:
    """Write the files, but none over one that the user has changed since.

    Raises:
        ChainError: a file differs from what was written here, and from what would be written now.
    """
    changed = changed_by_user(work_dir, files)
    if changed:
        raise ChainError(
            f'{", ".join(changed)} was changed since it was written, so it is not written anew. To run what is there: '
            f'tools/transfer.py {work_dir / "chain.py"}; to start afresh remove the file or give another --work-dir'
        )
    for name, text in files.items():
        write_atomically(work_dir / name, text.encode('utf-8', 'surrogateescape'))
    digests = {name: _digest(text) for name, text in files.items()}
    write_atomically(work_dir / RECORD, json.dumps({**_known(work_dir), **digests}, indent=1).encode())


def _known(work_dir: Path) -> dict[str, str]:
    try:
        return json.loads((work_dir / RECORD).read_text(encoding='utf-8'))
    except (OSError, ValueError):
        return {}


def changed_by_user(work_dir: Path, files: dict[str, str]) -> list[str]:
    """Files that are neither what was written here nor what would be written now."""
    known, changed = _known(work_dir), []
    for name, text in files.items():
        path = work_dir / name
        if path.is_file() and _file_digest(path) not in (known.get(name), _digest(text)):
            changed.append(str(path))
    return changed


def holds(path: Path, text: str) -> bool:
    """Whether a file is there and has this content."""
    return path.is_file() and _file_digest(path) == _digest(text)


def _file_digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode('utf-8', 'surrogateescape')).hexdigest()
