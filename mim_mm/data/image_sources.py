"""Where images lie: a folder however deep, a text list, or tar shards read in place by offset.

A shard is scanned once by :mod:`tarfile`; the index (name, offset, size of every image in it) is kept outside of the
data, in ``$MIM_MM_CACHE`` or ``~/.cache/mim_mm``, under a name that changes with the shard's size and time.
An image is read by opening its file, seeking and reading, with nothing kept open: that is safe in any loader worker.
"""

from __future__ import annotations

import glob
import hashlib
import io
import os
import tarfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from mim_mm import files
from mim_mm.folders import SUFFIXES, DataError, in_hidden, walk

LAYOUT = (
    f'a folder of images (any depth), a text file with one path a line, or tar shards; endings {", ".join(SUFFIXES)}'
)


class SourceError(DataError):
    """A set of images that cannot be used; the message names the value, the rule and the fix."""


@dataclass(frozen=True)
class Place:
    """Where the bytes of one image are: ``name`` as the user sees it, the whole file or a stretch of it in bytes."""

    name: str
    path: str
    offset: int = 0
    size: int = -1

    def read(self) -> bytes:
        """The image's bytes.

        Raises:
            OSError: the file is gone, no regular file, or shorter than it was when it was indexed.
        """
        with files.open_regular(self.path) as file:
            file.seek(self.offset)
            data = file.read(self.size)
        if 0 <= self.size != len(data):
            raise OSError(f'{self.path} ends {self.size - len(data)} bytes too early; it changed while it was in use')
        return data


@dataclass(frozen=True)
class Source:
    """A set of images. ``settings`` are the arguments with which a dataset finds it again (see :func:`open_source`);
    ``passed_over`` counts the files of other endings, and what is hidden where it was named, e.g. in a list."""

    kind: str  # folder, list or tar
    places: tuple[Place, ...]
    settings: dict = field(default_factory=dict)
    passed_over: dict[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.places)


def open_source(data_root: str, ann_file: str = '', shards: str = '') -> Source:
    """The images of a set, sorted by name, or for a list in its order.

    Args:
        data_root: folder; alone, every image below it. Relative names of a list and shards are looked for in it.
        ann_file: text file with one image a line, relative to ``data_root`` or absolute; or one ``.tar``.
        shards: glob of ``.tar`` files, relative to ``data_root``.

    Raises:
        SourceError: there is no such folder or file, or it holds no image.
    """
    settings = {k: v for k, v in dict(data_root=data_root, ann_file=ann_file, shards=shards).items() if v}
    if not os.path.isdir(data_root or '.'):
        raise SourceError(f"there is no folder '{data_root}'; expected {LAYOUT}")
    passed: Counter[str] = Counter()
    if shards or ann_file.endswith('.tar'):
        pattern = os.path.join(glob.escape(data_root), shards or glob.escape(ann_file))
        found = sorted(path for path in glob.glob(pattern, recursive=True) if os.path.isfile(path))
        if not found:
            raise SourceError(f"no tar shard '{os.path.join(data_root, shards or ann_file)}'; expected {LAYOUT}")
        kind, places = 'tar', [place for path in found for place in _in_shard(path, data_root, passed)]
    elif ann_file:
        kind, places = 'list', _in_list(os.path.join(data_root, ann_file), data_root, passed)
    else:
        kind, places = 'folder', list(_in_folder(data_root, passed))
    if not places:
        other = f' (there are {endings(passed)})' if passed else ''
        raise SourceError(f"no image in '{os.path.join(data_root, ann_file or shards)}'{other}; expected {LAYOUT}")
    return Source(kind, tuple(places), settings, dict(passed))


def endings(passed_over: dict[str, int], at_most: int = 8) -> str:
    """``.heic 6, .txt 1``, the most frequent first."""
    rows = sorted(passed_over.items(), key=lambda row: (-row[1], row[0]))
    more = len(rows) - at_most
    return ', '.join(f'{name} {count:,}' for name, count in rows[:at_most]) + (f' and {more} more' if more > 0 else '')


def _ending(name: str) -> str:
    return os.path.splitext(name)[1].lower() or 'without ending'


def find_source(given: str | Path) -> Source:
    """What the user's ``--images`` means: a folder, a folder of shards, a glob of shards, one shard, or a list file.

    A folder that holds ``.tar`` files and no image directly or below is a folder of shards.

    Raises:
        SourceError: nothing is there.
    """
    given = os.path.abspath(os.path.expanduser(str(given)))
    folder, name = os.path.split(given)
    if os.path.isdir(given):
        try:
            return open_source(given)
        except SourceError:
            return open_source(given, shards='**/*.tar') if _has_tar(given) else open_source(given)
    if os.path.isfile(given):
        if name.endswith(('.tar.gz', '.tgz', '.tar.bz2', '.tar.xz', '.zip')):
            raise SourceError(
                f"'{given}' is compressed, so no image in it can be read alone; unpack it, or gunzip to .tar"
            )
        return open_source(folder, ann_file=name)
    if glob.has_magic(given):
        fixed = next(p for p in Path(given).parents if not glob.has_magic(str(p)))
        return open_source(str(fixed), shards=os.path.relpath(given, fixed))
    raise SourceError(f"there is no '{given}'; expected {LAYOUT}")


def _has_tar(folder: str) -> bool:
    return any(name.endswith('.tar') for _, names in walk(folder) for name in names)


def _in_folder(root: str, passed: Counter[str]):
    for folder, names in walk(root):
        for name in names:
            if name.lower().endswith(SUFFIXES):
                path = os.path.join(folder, name)
                yield Place(os.path.relpath(path, root), path)
            else:
                passed[_ending(name)] += 1


def _in_list(path: str, root: str, passed: Counter[str]) -> list[Place]:
    """Lines of a list; blank lines and lines that begin with # do not count, nor do hidden files."""
    with io.TextIOWrapper(files.open_regular(path), encoding='utf-8-sig', errors='surrogateescape') as file:
        try:
            lines = [line.strip() for line in file]
        except UnicodeError as error:
            raise SourceError(f"'{path}' is not a text file with one image a line: {error}") from error
    if any('\0' in line for line in lines[:100]):
        raise SourceError(f"'{path}' is not a text file with one image a line; expected {LAYOUT}")
    names = [line for line in lines if line and not line.startswith('#')]
    seen = [name for name in names if not in_hidden(name)]
    if len(names) > len(seen):
        passed['hidden'] += len(names) - len(seen)
    return [Place(name, os.path.join(root, name)) for name in seen]


# ---- tar shards

INDEX = 2  # changes with what an index holds, so that an older one is not taken


def _in_shard(path: str, root: str, passed: Counter[str]) -> list[Place]:
    shown = os.path.relpath(path, root)
    index = shard_index(path)
    passed.update(index['passed_over'])
    return [Place(f'{shown}:{name}', path, offset, size) for name, offset, size in index['images']]


def shard_index(path: str) -> dict:
    """What a tar holds, from the cache where that is still right.

    Returns:
        ``images``, ``[name, offset, size]`` of every one in its order, and ``passed_over``, ``{ending: files}``.

    Raises:
        SourceError: the file is no uncompressed tar, or is cut off.
    """
    state = os.stat(path)
    key = f'{INDEX}\0{os.path.realpath(path)}\0{state.st_size}\0{state.st_mtime_ns}'
    cached = cache_folder() / f'{hashlib.sha256(os.fsencode(key)).hexdigest()[:32]}.json'
    known = files.known_object(cached)
    if known.get('size') == state.st_size and isinstance(known.get('images'), list) and 'passed_over' in known:
        return known
    images, passed = _scan(path, state.st_size)
    found = dict(shard=path, size=state.st_size, images=images, passed_over=passed)
    try:
        files.write_json(cached, found, sync=False, indent=None)
    except OSError:
        pass  # a cache that cannot be written costs a scan the next time
    return found


def _scan(path: str, total: int) -> tuple[list[list], dict[str, int]]:
    images, passed = [], Counter()
    try:
        with tarfile.open(path, 'r:') as tar:
            for member in tar:
                if member.offset_data + member.size > total:
                    raise SourceError(f"'{path}' is cut off inside of {member.name!r}: copy it again")
                if not member.isreg() or member.issparse() or in_hidden(member.name.lstrip('/')):
                    continue
                if member.name.lower().endswith(SUFFIXES):
                    images.append([member.name, member.offset_data, member.size])
                else:
                    passed[_ending(member.name)] += 1
    except tarfile.TarError as error:
        raise SourceError(f"'{path}' is not an uncompressed tar ({error}): unpack it, or write it anew") from error
    return images, dict(passed)


def cache_folder() -> Path:
    """``$MIM_MM_CACHE/tar``, else ``$XDG_CACHE_HOME`` or ``~/.cache``, ``/mim_mm/tar``."""
    named = os.environ.get('MIM_MM_CACHE')
    base = Path(named) if named else Path(os.environ.get('XDG_CACHE_HOME') or '~/.cache') / 'mim_mm'
    return base.expanduser() / 'tar'
