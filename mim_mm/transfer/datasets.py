"""Which data a stage saw: a digest of its folders and annotation files, made once and then only checked.

A folder is known by the sorted relative names and sizes of its files, an annotation file by its content. Listing
ImageNet takes minutes on a network disk, so a listing is kept together with the modification time of every folder in
it: adding, removing or renaming a file changes one of them, and the folder is listed again. A file rewritten in place
under the same name is therefore not noticed; annotation files and checkpoints, which decide most, are read whenever
their size or time changed.
"""

from __future__ import annotations

import copy
import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mim_mm.engine.start import annotations, guard
from mim_mm.engine.start.checks import relations
from mim_mm.files import known_object
from mim_mm.folders import is_hidden
from mim_mm.transfer import chain as chain_file
from mim_mm.transfer.manifest import write_json


class DigestCache:
    """Digests of files and folders, kept in one json file.

    Args:
        path: the file; it is read now and written by :meth:`save`.
        say: called with one line before something slow.
    """

    def __init__(self, path: Path, say: Callable[[str], None] | None = None):
        self.path = Path(path)
        self.say = say or (lambda line: None)
        self._changed = False
        self._known: dict[str, Any] = known_object(self.path)

    def save(self) -> None:
        """Write what is new. A cache that cannot be written costs time later, nothing else."""
        if not self._changed:
            return
        try:
            write_json(self.path, self._known)
            self._changed = False
        except OSError as error:
            self.say(f'{self.path} cannot be written ({error}); data will be listed again next time')

    def file(self, path: Path) -> str:
        """sha256 of a file's content.

        Raises:
            OSError: the file is not there or cannot be read.
        """
        real = os.path.realpath(path)
        state = os.stat(real)
        stamp = [state.st_size, state.st_mtime_ns]
        known = self._known.get(real)
        if known and known.get('stamp') == stamp:
            return known['sha256']
        sha = hashlib.sha256()
        with open(real, 'rb') as file:
            for block in iter(lambda: file.read(1 << 20), b''):
                sha.update(block)
        self._known[real] = dict(stamp=stamp, sha256=sha.hexdigest())
        self._changed = True
        return sha.hexdigest()

    def folder(self, path: Path) -> dict[str, Any]:
        """``dict(files=count, bytes=total, sha256=...)`` of everything below a folder, links followed.

        Raises:
            OSError: the folder is not there or cannot be listed.
        """
        real = os.path.realpath(path)
        known = self._known.get(real)
        if known and self._same_folders(real, known.get('folders') or {}):
            return dict(files=known['files'], bytes=known['bytes'], sha256=known['sha256'])
        self.say(f'listing {path} (once; kept in {self.path.name})')
        sha, files, total, folders = hashlib.sha256(), 0, 0, {}
        for folder, mtime, entries in _walk(real):
            folders[folder] = mtime
            for name, size in entries:
                sha.update(f'{os.path.join(folder, name)}\0{size}\n'.encode('utf-8', 'surrogateescape'))
                files, total = files + 1, total + size
        found = dict(files=files, bytes=total, sha256=sha.hexdigest())
        self._known[real] = dict(found, folders=folders)
        self._changed = True
        return found

    @staticmethod
    def _same_folders(real: str, folders: dict[str, int]) -> bool:
        try:
            return bool(folders) and all(os.stat(os.path.join(real, f)).st_mtime_ns == t for f, t in folders.items())
        except OSError:
            return False


def _walk(top: str) -> Iterator[tuple[str, int, list[tuple[str, int]]]]:
    """(folder relative to top, its mtime, [(file, size)]) in sorted order; a link back to a parent is not followed."""
    waiting = [('', (os.path.realpath(top),))]
    while waiting:
        folder, above = waiting.pop()
        here = os.path.join(top, folder)
        mtime = os.stat(here).st_mtime_ns  # before listing: a file added meanwhile makes the listing stale, not wrong
        files, inner = [], []
        with os.scandir(here) as entries:
            for entry in entries:
                if is_hidden(entry.name):  # no image and no class: what a notebook leaves behind changes no data
                    continue
                if entry.is_dir():
                    real = os.path.realpath(entry.path) if entry.is_symlink() else os.path.join(above[-1], entry.name)
                    if real not in above:
                        inner.append((os.path.join(folder, entry.name), above + (real,)))
                elif entry.is_file():
                    files.append((entry.name, entry.stat().st_size))
        yield folder, mtime, sorted(files)
        waiting += sorted(inner, reverse=True)


def sources(config: dict[str, Any]) -> dict[str, Path]:
    """The files and folders the training and validation datasets of a config read.

    Returns:
        label (path relative to the data root, with the loop it belongs to) -> path. A dataset that names neither
        annotation file nor folder counts with its whole root; one without ``data_root`` makes its data itself.
    """
    found: dict[str, Path] = {}
    for loop in ('train', 'val'):
        loader = config.get(f'{loop}_dataloader')
        for dataset in _datasets(loader.get('dataset') if isinstance(loader, dict) else None):
            root = str(dataset.get('data_root') or '')
            inside = [dataset['ann_file']] if isinstance(dataset.get('ann_file'), str) and dataset['ann_file'] else []
            prefix = dataset.get('data_prefix')
            inside += [
                p for p in (prefix.values() if isinstance(prefix, dict) else [prefix]) if isinstance(p, str) and p
            ]
            split = dataset.get('split')
            if not inside and isinstance(split, str) and split and os.path.isdir(os.path.join(root, split)):
                inside = [split]
            if not inside and root:
                inside = ['']
            for part in inside:
                found[f'{loop}/{part.strip("/")}'.rstrip('/')] = Path(root) / part
    return found


def _datasets(value: Any) -> Iterator[dict[str, Any]]:
    """Every dataset dict in a loader's ``dataset``, through any wrappers."""
    if isinstance(value, (list, tuple)):
        for item in value:
            yield from _datasets(item)
    elif isinstance(value, dict):
        if any(value.get(key) for key in ('data_root', 'ann_file', 'data_prefix')):
            yield value
        for key in ('dataset', 'datasets'):
            yield from _datasets(value.get(key))


def identity(config: dict[str, Any], cache: DigestCache) -> dict[str, Any]:
    """What every source of a config holds: ``{label: dict(sha256=...) or dict(missing=True)}``."""
    result = {}
    for label, path in sources(config).items():
        try:
            result[label] = cache.folder(path) if path.is_dir() else dict(sha256=cache.file(path))
        except OSError:
            result[label] = dict(missing=True)
    return result


def change(old: dict[str, Any], new: dict[str, Any]) -> str | None:
    """What differs between two data identities, in words; None when nothing does, or the data are not here."""
    for label in list(old) + [label for label in new if label not in old]:
        before, after = old.get(label), new.get(label)
        if before == after or (after or {}).get('missing'):
            continue
        if not before or not after:
            return f'{label} {"added" if not before else "no longer read"}'
        if 'files' in before and 'files' in after:
            return f'{label}: {before["files"]} files, {before["bytes"]} bytes -> {after["files"]}, {after["bytes"]}'
        return f'{label} has other content'
    return None


def require(configs: dict[str, Config]) -> None:
    """Stop before anything runs when data of a stage are not there.

    Args:
        configs: stage name -> resolved config.

    Raises:
        ChainError: naming everything that is missing, or that an annotation file says and that has no single meaning.
    """
    lost: dict[str, list[str]] = {}
    for stage, config in configs.items():
        try:
            guard.check_data_roots(config)
            # Weeks of pretraining may lie before the stage that would find it.
            annotations.check_annotations(copy.deepcopy(config))
            # Names of classes and arguments wait for the stage itself: looking them up imports every library.
            relations.check_together(config)
        except guard.ConfigError as error:
            lost.setdefault(str(error), []).append(stage)
    if lost:
        lines = [f'  {", ".join(stages)}: {problem}' for problem, stages in lost.items()]
        hint = 'Folders elsewhere can also be given to the chain: --data-root imagenet=DIR coco=DIR ade20k=DIR'
        raise chain_file.ChainError('\n'.join(['data not found or not usable, nothing was started:', *lines, hint]))
