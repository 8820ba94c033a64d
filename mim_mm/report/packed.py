"""The results of a chain as one compressed file: what the report reads, without weights, logs and machine paths.

Packed, a study can be kept in a repository and its page written again anywhere: ``python -m mim_mm.report`` takes the
file in place of a work dir.
"""

from __future__ import annotations

import json
import lzma
from pathlib import Path, PurePosixPath

from mim_mm import files
from mim_mm.compat.paths import repo_root
from mim_mm.report.class_results import CONFUSION, PER_CLASS, is_own
from mim_mm.report.collect import read_run
from mim_mm.report.damage import inside

__all__ = ['pack', 'unpack']

SCHEMA = 1
SUFFIX = '.json.xz'
MOST = 1 << 28  # bytes unpacked; a chain of a hundred runs has a tenth of it


def _kept(work_dir: Path) -> list[Path]:
    """Of each run its run.json, the JSON files that run.json names, what it left by class, and mmengine's scalars; of
    the chain its facts."""
    kept = [path for name in ('chain.json', 'compare.json') if (path := work_dir / name).is_file()]
    for record in sorted(work_dir.glob('*/run.json')):
        named = read_run(record.parent).artifacts.values()  # those that lie in the work dir
        plain = [path for path in named if path.is_relative_to(work_dir) and '..' not in path.parts]
        kept += [record, *(path for path in plain if path.suffix == '.json')]
        kept += [path for name in (CONFUSION, PER_CLASS) if is_own(path := record.parent / name, record.parent)]
        kept += sorted(record.parent.glob('*/vis_data/scalars.json'))
    return kept


def _without_paths(value, root: str):
    """Paths inside the checkout become relative to it, all others lose their folder: they say nothing elsewhere."""
    if isinstance(value, dict):
        return {key: _without_paths(item, root) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_paths(item, root) for item in value]
    if not isinstance(value, str) or '/' not in value:
        return value
    text = value.replace(f'{root}/', '')
    return PurePosixPath(text).name if text.startswith('/') else text


def pack(work_dir: str | Path, target: str | Path, root: str | Path | None = None) -> Path:
    """Write the results in ``work_dir`` to ``target`` (``*.json.xz``); the same results give the same bytes.

    Args:
        root: the checkout that the runs came from, if not this one: paths in it are written relative to it.

    Raises:
        FileNotFoundError: no run has left a run.json there.
        ValueError: another suffix.
    """
    work_dir, target = Path(work_dir), Path(target)
    if not target.name.endswith(SUFFIX):
        raise ValueError(f'{target.name} must end in {SUFFIX}, which says what it is')
    kept = _kept(work_dir)
    if not any(path.name == 'run.json' for path in kept):
        raise FileNotFoundError(f'{work_dir} holds no <stage>/run.json, so there is nothing to pack')
    root = str(root or repo_root())
    content = {}
    for path in kept:
        found = files.read_rows(path) if path.name == 'scalars.json' else files.read_json(path)
        content[path.relative_to(work_dir).as_posix()] = _without_paths(found, root)
    text = json.dumps(dict(schema=SCHEMA, files=content), sort_keys=True, separators=(',', ':'))
    files.write_bytes(target, lzma.compress(text.encode(), preset=9))
    return target


def _decompressed(source: Path) -> bytes:
    """The content, up to :data:`MOST` bytes: a few kB of xz can hold terabytes."""
    reader = lzma.LZMADecompressor(memlimit=1 << 28)
    text = reader.decompress(files.read_regular(source), max_length=MOST + 1)
    if len(text) > MOST:
        raise ValueError(f'it unpacks to more than {MOST >> 20} MB, which no results of a chain do')
    if not reader.eof:
        raise ValueError('it is cut off')
    return text


def _place(source, name: str, work_dir: Path) -> Path:
    """Where a packed file goes: a JSON file below ``work_dir``, also when links there are followed."""
    pure = PurePosixPath(name)
    # as pack() names them: on Windows a backslash or a colon would lead elsewhere
    plain = not (pure.is_absolute() or '..' in pure.parts or any(c in name for c in '\\:\0'))
    if not plain or not inside(work_dir / pure, work_dir):
        raise ValueError(f'{source} names {name!r}, which lies outside of the folder it is unpacked to')
    if pure.suffix != '.json':
        raise ValueError(f'{source} names {name!r}: results of a chain are JSON files')
    return work_dir / pure


def unpack(source: str | Path, work_dir: str | Path) -> Path:
    """Lay the files of :func:`pack` out in ``work_dir``; files that are there already stay.

    Raises:
        ValueError: not such a file, or a name in it that leads out of ``work_dir``.
    """
    work_dir = Path(work_dir)
    try:
        content = json.loads(_decompressed(Path(source)))
        packed = content['files'] if content['schema'] == SCHEMA else None
    except (OSError, lzma.LZMAError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f'{source} is not a packed chain ({error}): give a file that --pack wrote') from error
    if not isinstance(packed, dict):
        raise ValueError(f'{source} has schema {content["schema"]}, this version reads {SCHEMA}: update mim_mm')
    places = {name: _place(source, name, work_dir) for name in packed}  # all of them, before one is written
    for name, found in packed.items():
        pure, path = PurePosixPath(name), places[name]
        if path.exists():
            continue
        if pure.name == 'scalars.json' and not (isinstance(found, list) and all(isinstance(r, dict) for r in found)):
            raise ValueError(f'{source}: {name} holds no list of objects')
        (files.write_rows if pure.name == 'scalars.json' else files.write_json)(path, found)
    return work_dir
