"""The one way a file is written and read: whole or not at all, JSON, and JSON lines. Standard library only.

Written in place, a kill, a power cut or a full disk in the middle would leave half a file under the final name, and
with it a finished run that nobody can tell from an unfinished one.
"""

from __future__ import annotations

import errno
import json
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO


class DamagedFile(ValueError):
    """A file that is there and does not hold what it should; the message names it, what is wrong, and the fix."""


# ---- what cannot be written

_STORAGE = {
    errno.ENOSPC: 'the disk is full',
    errno.EDQUOT: 'your quota on this disk is used up',
    errno.EROFS: 'the file system is read-only',
    errno.EFBIG: 'the file would be larger than this process may write (ulimit -f)',
}
_PERMISSION = {errno.EACCES: 'permission is denied', errno.EPERM: 'permission is denied'}
_FIX = {
    errno.EROFS: 'have it mounted for writing, or take another folder',
    errno.EFBIG: 'raise the limit',
    errno.EACCES: 'take a folder that you may write to, or have its owner let you',
    errno.EPERM: 'take a folder that you may write to, or have its owner let you',
}


class NotWritten(OSError):
    """A file could not be written; the message says what is full or forbidden, how much is needed, and what to do."""

    def __str__(self) -> str:
        return self.args[1]


def not_written(error: BaseException, path: str | Path | None = None, needed: int | None = None) -> NotWritten | None:
    """The error that says why a disk did not take a file; None where that was not the reason.

    Args:
        error: what was raised; what it was raised from counts too, as torch.save hides the reason there.
        path: of the file; without it the error's own, and a denied permission may have been met while reading.
        needed: bytes of the whole file, where they are known.
    """
    seen: BaseException | None = error
    while seen is not None and not isinstance(seen, OSError):
        seen = seen.__cause__ or seen.__context__
    if seen is None or isinstance(seen, NotWritten):
        return seen
    reasons = _STORAGE if path is None else {**_STORAGE, **_PERMISSION}
    if seen.errno not in reasons:
        return None
    path = path or seen.filename
    size = '' if needed is None else f' It needs {_megabytes(needed)}'
    try:
        free = shutil.disk_usage(_existing(Path(path or '.'))).free
        size += f'{";" if size else ""} {_megabytes(free)} are free there.'
    except OSError:
        size += '.' if size else ''
    fix = _FIX.get(seen.errno, 'free space there')
    what = f'{path} could not be written' if path else 'A file could not be written'
    return NotWritten(seen.errno, f'{what}: {reasons[seen.errno]}.{size} What was there before is whole: {fix}.')


def _megabytes(size: int) -> str:
    return f'{size / 1e6:,.1f} MB'


def _existing(path: Path) -> Path:
    return next((folder for folder in (path, *path.absolute().parents) if folder.exists()), Path('/'))


# ---- whole or not at all


@contextmanager
def replacing(path: str | Path, sync: bool = True, needed: int | None = None) -> Iterator[Path]:
    """A temporary name beside ``path`` to write to; at the end it takes the place of ``path``, after an error it goes.

    A reader sees the old file or the whole new one, never a part. The temporary file lies in the same folder, since a
    rename across file systems is a copy; its name is its own among threads, processes and machines.

    Args:
        path: its folder is made where there is none.
        sync: bring the content to the disk before the rename. False for what is rewritten often or can be made again.
        needed: bytes of the file, where they are known, for the message.

    Raises:
        NotWritten: the disk is full or read-only, or the folder is closed; the old file, if any, is still there.
        OSError: another reason, as that nothing was written.
    """
    path = Path(path)
    temporary = path.with_name(f'.{path.name[:200]}.{os.getpid()}-{secrets.token_hex(4)}.tmp')
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        if sync:
            with open(temporary, 'rb') as file:
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except Exception as error:
        told = not_written(error, path, needed)
        if told is None or told is error:
            raise
        raise told from error
    finally:
        with suppress(OSError):  # of a folder that is read-only, where nothing was written
            temporary.unlink(missing_ok=True)


def write_bytes(path: str | Path, data: bytes, sync: bool = True) -> None:
    """Write a file through :func:`replacing`."""
    with replacing(path, sync, len(data)) as temporary:
        temporary.write_bytes(data)


def write_text(path: str | Path, text: str, sync: bool = True, errors: str = 'strict') -> None:
    """Write a text in UTF-8; ``errors='surrogateescape'`` where it holds file names, which may be any bytes."""
    write_bytes(path, text.encode('utf-8', errors), sync)


def write_json(path: str | Path, content: Any, sync: bool = True, indent: int | None = 1, **options: Any) -> None:
    """Write JSON; ``options`` are those of :func:`json.dumps`."""
    write_text(path, json.dumps(content, indent=indent, **options) + '\n', sync)


# ---- regular files


class NoRegularFile(OSError):
    """A pipe, socket, device or folder under the name of a file: reading it may wait for ever, or never end."""


def open_regular(path: str | os.PathLike) -> BinaryIO:
    """Open a regular file, or a link to one, for reading bytes.

    Raises:
        NoRegularFile: it is something else; without waiting, as ``open`` does for a pipe that nobody writes to.
        OSError: as ``open``.
    """
    try:
        handle = os.open(path, os.O_RDONLY | getattr(os, 'O_NONBLOCK', 0) | getattr(os, 'O_CLOEXEC', 0))
    except OSError as error:
        if error.errno == errno.ENXIO:  # a socket
            raise NoRegularFile(_is_what(path, 'a socket')) from error
        raise
    mode = os.fstat(handle).st_mode
    if not stat.S_ISREG(mode):
        os.close(handle)
        kinds = {stat.S_IFIFO: 'a pipe (FIFO)', stat.S_IFDIR: 'a folder'}
        raise NoRegularFile(_is_what(path, kinds.get(stat.S_IFMT(mode), 'a device')))
    os.set_blocking(handle, True)
    return os.fdopen(handle, 'rb')


def _is_what(path: str | os.PathLike, what: str) -> str:
    return f"'{os.fspath(path)}' is {what}, no regular file: take it out of the data"


def read_regular(path: str | os.PathLike) -> bytes:
    """All bytes of a file through :func:`open_regular`."""
    with open_regular(path) as file:
        return file.read()


# ---- reading JSON


def read_json(path: str | Path, fix: str = 'write it anew, or remove it') -> Any:
    """What a JSON file holds, in UTF-8 with or without a mark at its beginning.

    Args:
        fix: what to do about a damaged file, for the message.

    Raises:
        FileNotFoundError: there is none.
        DamagedFile: it cannot be read, or is no JSON.
    """
    try:
        return json.loads(Path(path).read_bytes())
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        raise DamagedFile(f'{path} cannot be read ({error}): {fix}') from error


def known_object(path: str | Path) -> dict[str, Any]:
    """The JSON object in a file, for what can be done without: {} where there is none that can be read."""
    try:
        content = read_json(path)
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def known_text(path: str | Path) -> str:
    """A short text in a file, for what can be done without: '' where there is none that can be read."""
    try:
        return Path(path).read_bytes().decode('utf-8', 'surrogateescape')
    except OSError:
        return ''


# ---- JSON lines: one object a line, one line a step


def append_row(path: str | Path, row: dict[str, Any]) -> None:
    """Add a line. After a line that a kill cut off it begins a new one."""
    line = json.dumps(row).encode() + b'\n'
    with open(path, 'ab+') as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            line = line if file.read() == b'\n' else b'\n' + line
        file.write(line)


def read_rows(path: str | Path) -> list[dict[str, Any]]:
    """The objects of a file in its order, [] without a file; a line that a kill cut off is passed over."""
    try:
        lines = Path(path).read_bytes().splitlines()
    except FileNotFoundError:
        return []
    return [row for row in map(_row, lines) if row is not None]


def _row(line: bytes) -> dict[str, Any] | None:
    try:
        row = json.loads(line.decode('utf-8', 'replace'))
    except ValueError:
        return None
    return row if isinstance(row, dict) else None


def write_rows(path: str | Path, rows: list[dict[str, Any]]) -> None:
    """Write all lines at once, whole or not at all."""
    write_text(path, ''.join(f'{json.dumps(row)}\n' for row in rows))


def drop_after(path: str | Path, step: int, key: str = 'iter') -> None:
    """Keep the lines whose ``key`` is at most ``step``, and no damaged one.

    A resumed run drops so what was logged of steps that it trains again; a fresh run, of step 0, what an earlier run in
    its folder left.
    """
    if Path(path).is_file():
        steps = ((row, row.get(key)) for row in read_rows(path))
        write_rows(path, [row for row, at in steps if isinstance(at, (int, float)) and at <= step])
