"""What counts below a data root: which folders and files are hidden, which folders are classes, and in which order.

The one place that training, evaluation, surveys, lists, shards and the class count ask. Standard library only.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

# What operating systems, archivers and file servers leave between images.
LEFT_BEHIND = frozenset(('__MACOSX', '@eaDir', '#recycle', '$RECYCLE.BIN', 'System Volume Information', 'lost+found'))
# The endings of what is an image, wherever images are listed.
SUFFIXES = tuple('.jpg .jpeg .png .ppm .bmp .pgm .tif .tiff .webp .gif .jp2 .npy'.split())


class DataError(ValueError):
    """Data that must not be trained or evaluated on; the message is one line with the value, the rule and the fix."""


def is_hidden(name: str) -> bool:
    """Whether one folder or file name is never a class or an image: ``.ipynb_checkpoints``, ``._x.jpg``, ..."""
    return name in LEFT_BEHIND or name.startswith('.') and name not in ('.', '..')


def in_hidden(path: str) -> bool:
    """Whether any part of a path relative to a data root is hidden. Of an absolute path only the file's own name and
    what is left behind count, since data may lie below a folder such as ``~/.cache``."""
    parts = str(path).replace('\\', '/').split('/')
    if str(path).startswith('/'):
        return is_hidden(parts[-1]) or any(p in LEFT_BEHIND or p == '.ipynb_checkpoints' for p in parts)
    return any(map(is_hidden, parts))


def subfolders(folder: str | os.PathLike) -> list[str]:
    """Names of the folders in it that are not hidden, sorted as mmpretrain sorts classes."""
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir() and not is_hidden(entry.name))


def walk(root: str | os.PathLike) -> Iterator[tuple[str, list[str]]]:
    """``(folder, file names)`` of a tree in sorted order, without what is hidden, and without pipes, devices and
    sockets, which cannot be read as files. Links are followed, but not back to a folder that was seen."""
    seen = set()
    for folder, inner, files in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:  # a link back to a folder above would go on for ever
            inner.clear()
            continue
        seen.add(real)
        inner[:] = sorted(name for name in inner if not is_hidden(name))
        special = _special(folder) if files else ()
        yield folder, sorted(name for name in files if not is_hidden(name) and name not in special)


def _special(folder: str) -> set[str]:
    """Names in a folder that are neither files nor folders, nor links to such. A link to nothing is none of them: who
    reads it says that the file is gone. Costs no call for a file, whose kind the listing has."""
    with os.scandir(folder) as entries:
        odd = [e for e in entries if not e.is_file() and not e.is_dir()]
    return {entry.name for entry in odd if not entry.is_symlink() or os.path.exists(entry.path)}


def same_numbering(names: Sequence[str], training: Sequence[str], where: str, trained: str) -> None:
    """Refuse class names that training lacks: they have no number.

    Args:
        names: of a validation set; it may lack some of the training set's.
        training: class names in label order.
        where, trained: what to call both sets.

    Raises:
        DataError: naming the strangers.
    """
    strange = sorted(set(names) - set(training))
    if strange:
        lower = {name.lower(): name for name in training}
        near = [f"'{n}' differs from '{lower[n.lower()]}' in case only" for n in strange if n.lower() in lower]
        raise DataError(
            f'{where} has {len(strange)} class(es) that train lacks ({strange[:5]}): labels are numbered by {trained}, '
            f'so these have no number{"; " + near[0] if near else ""}. Rename, add or remove them'
        )
