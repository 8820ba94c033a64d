"""The files that ``tools/transfer.py --images`` writes: never over one that the user has changed since."""

from __future__ import annotations

import hashlib
from pathlib import Path

from mim_mm.files import known_object, write_json, write_text
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
        write_text(work_dir / name, text, errors='surrogateescape')
    digests = {name: _digest(text) for name, text in files.items()}
    write_json(work_dir / RECORD, {**known_object(work_dir / RECORD), **digests})


def changed_by_user(work_dir: Path, files: dict[str, str]) -> list[str]:
    """Files that are neither what was written here nor what would be written now."""
    known, changed = known_object(work_dir / RECORD), []
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
