"""The COCO files that a config names, checked before anything is trained; what had to be mended replaces them.

A bad polygon in a validation file would otherwise end the run at its first evaluation, hours after the start. Data sets
and evaluators are pointed at the same mended copy. A file is looked at once: that it is sound is kept under a digest of
its content, so that all processes of a job, and the next job, only read it for the digest.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from mmengine.config import Config
from mmengine.logging import print_log

from mim_mm import files
from mim_mm.config_parts import steps_in, type_name
from mim_mm.data import image_header
from mim_mm.data.coco_file import CocoFile, read_coco
from mim_mm.data.image_sources import SourceError, cache_folder
from mim_mm.engine.start import guard
from mim_mm.folders import DataError

RANKS = ('RANK', 'SLURM_PROCID', 'OMPI_COMM_WORLD_RANK')
VERSION = 1  # of the checks: raise it when they change, so that files are looked at again


def check_annotations(cfg: Config, folder: str | Path | None = None, say: Callable[[str], None] = print_log) -> None:
    """Check every COCO file of a config; where one had to be mended, point data sets and evaluators at a copy.

    Args:
        cfg: changed in place. Its ``max_pixels`` holds from here on, since the headers of images are read.
        folder: mended copies are written to ``<folder>/annotations``; None: nothing is written, and the config stays.
        say: told what was found, a line at a time, in the first process of a job.

    Raises:
        guard.ConfigError: what has no single meaning, with the id of the annotation or image; a recipe with masks and
            annotations without; a file of other classes than the config's.
    """
    try:
        image_header.state_max_pixels(cfg.get('max_pixels'))
    except DataError as error:
        raise guard.ConfigError(str(error)) from error
    if any(int(os.environ.get(name) or 0) for name in RANKS):

        def say(line: str) -> None:
            pass

    evaluators = [e for key in ('val_evaluator', 'test_evaluator') for e in _flat(cfg.get(key))]
    for loader, dataset in guard.iter_datasets(cfg):
        if not _is_coco(dataset):
            continue
        path = _absolute(dataset.get('data_root'), dataset['ann_file'])
        readers = [e for e in evaluators if e.get('ann_file') and _absolute(None, e['ann_file']) == path]
        trained = loader == 'train_dataloader'
        prefix = dataset.get('data_prefix') or {}
        options = dict(
            images=_absolute(
                dataset.get('data_root'), prefix.get('img') or '' if isinstance(prefix, Mapping) else prefix
            ),
            masks=_loads_masks(dataset) or (not trained and any('segm' in _flat(e.get('metric')) for e in readers)),
            classes=() if cfg.get('classes_from_data') else _classes(dataset),
            turn=_turns(dataset),
        )
        copies = folder and Path(folder) / 'annotations'
        mended = _look(path, options, trained, copies, lambda text, name=loader: say(f'{name}: {text}'))
        if mended:
            for reader in [dataset, *readers]:
                reader['ann_file'] = mended


def _flat(value) -> list:
    return list(value) if isinstance(value, (list, tuple)) else [] if value is None else [value]


def _is_coco(dataset: Mapping) -> bool:
    return type_name(dataset) == 'CocoDataset' and str(dataset.get('ann_file') or '').endswith('.json')


def _absolute(root, path) -> str:
    return os.path.abspath(os.path.join(str(root or ''), str(path)))


def _loads_masks(dataset: Mapping) -> bool:
    return any(step.get('with_mask') for step in steps_in(dataset.get('pipeline')))


def _turns(dataset: Mapping) -> bool:
    """Whether the loader applies the EXIF orientation, which mmcv does unless it is told otherwise."""
    kinds = [str(step.get('color_type', '')) for step in steps_in(dataset.get('pipeline'))]
    return not any(kind == 'unchanged' or kind.endswith('ignore_orientation') for kind in kinds)


def _classes(dataset: Mapping) -> tuple[str, ...]:
    """Names in the order of the labels; () where a file names them, which mmdet reads."""
    classes = (dataset.get('metainfo') or {}).get('classes')
    if classes is None:
        from mmdet.datasets import CocoDataset  # slow to import

        classes = CocoDataset.METAINFO['classes']
    return () if isinstance(classes, str) else tuple(classes)


def _look(path: str, options: dict, trained: bool, folder: Path | None, say: Callable[[str], None]) -> str | None:
    """The path of a mended copy, None where the file is good as it is."""
    key = _key(path, options, trained)
    record = cache_folder().parent / 'annotations' / f'{key[:32]}.json'
    copy = folder and folder / f'{Path(path).stem}-{key[:8]}.json'
    with _alone(record.with_suffix('.lock')):
        known = _read(record)
        if known is None or (known['mended'] and copy and not copy.is_file()):
            if os.path.getsize(path) > 100 << 20:
                say(f'checking {path} (once; half a minute for a file as large as COCO)')
            known = _check(path, options, trained, copy)
            with contextlib.suppress(OSError):  # without the record it is looked at again next time, nothing else
                files.write_json(record, known, indent=None)
    for note in known['notes']:
        say(f'{path}: {note}')
    if not known['mended'] or not copy:
        return None
    say(f'{path} is read from its mended copy {copy}')
    return str(copy.resolve())


def _check(path: str, options: dict, trained: bool, copy: Path | None) -> dict:
    try:
        found = read_coco(path, complete=True, **options)
    except SourceError as error:
        raise guard.ConfigError(str(error)) from error
    notes = found.notes + _unused(found, options['classes'], path) + ([found.checked] if found.notes else [])
    # mmdet itself passes over empty boxes in training; a copy of half a gigabyte would not change anything.
    mended = found.changed and not (trained and found.trains_alike)
    if mended and copy:
        files.write_json(copy, found.content, indent=None)
    return dict(path=path, mended=mended, notes=notes)


def _unused(found: CocoFile, classes: tuple[str, ...], path: str) -> list[str]:
    """A note on annotations of classes that the config does not list, which mmdet passes over."""
    other = {row['id']: row['name'] for row in found.content['categories'] if row['name'] not in set(classes)}
    if not classes or not other:
        return []
    unused = [a for a in found.content['annotations'] if a['category_id'] in other]
    names = ', '.join(list(other.values())[:5])
    if len(unused) == len(found.content['annotations']):
        raise guard.ConfigError(
            f"'{path}': none of its annotations is of a class that the config lists ({', '.join(classes[:3])}, ...); "
            f'it has {names}: set metainfo=dict(classes=...) and num_classes, or pass '
            '--cfg-options classes_from_data=True'
        )
    return (
        [f'{len(unused):,} annotations of classes that the config does not list are not used: {names}']
        if unused
        else []
    )


def _key(path: str, options: dict, trained: bool) -> str:
    """Of all that decides the answer: content, options, and the listing of the image folder by its time of change."""
    sha = hashlib.sha256()
    try:
        with files.open_regular(path) as file:
            for block in iter(lambda: file.read(1 << 20), b''):
                sha.update(block)
        stamp = os.stat(options['images']).st_mtime_ns
    except OSError as error:
        raise guard.ConfigError(f'{error.filename or path} cannot be read: {error.strerror or error}') from error
    sha.update(json.dumps([VERSION, options, trained, stamp], sort_keys=True).encode())
    return sha.hexdigest()


def _read(record: Path) -> dict | None:
    known = files.known_object(record)
    return known if isinstance(known.get('mended'), bool) and isinstance(known.get('notes'), list) else None


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """One process of a machine at a time, where the file system can lock; otherwise each looks for itself."""
    with contextlib.ExitStack() as stack:
        try:
            import fcntl

            path.parent.mkdir(parents=True, exist_ok=True)
            file = stack.enter_context(open(path, 'w'))
            fcntl.flock(file, fcntl.LOCK_EX)
        except (ImportError, OSError):
            pass
        yield
