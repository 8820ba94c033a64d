"""Labelled sets of torchvision as class folders, ``train/<class>/*`` and ``test/<class>/*``, by their official splits.

Sets that are made of files are copied byte for byte or linked; sets that are arrays become PNG, which loses nothing.
torchvision finds and reads the raw files. Those of CIFAR are pickles, which could run code: its class compares their
checksums with those of the published files before it opens one, and refuses others.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from mim_mm import files
from mim_mm.folders import SUFFIXES, DataError, is_hidden

__all__ = ['SETS', 'RawSet', 'lay_out', 'open_parts']


@dataclass(frozen=True)
class RawSet:
    """A set of torchvision.

    kind: its class. parts: folder -> the options of the parts that go into it together. paths: the paths of its images
    and their labels, of what is made of files; None: arrays. note: what the folders are officially.
    """

    kind: str
    parts: dict[str, list[dict]]
    paths: Callable | None = None
    note: str = ''


def _files(name: str) -> Callable:
    """Paths and labels of sets that keep them in two private lists, which they have had since they were added."""
    return lambda found: zip(getattr(found, name), found._labels)


def _pairs(found) -> list:
    return found._samples


def _inaturalist(found) -> Iterator:
    for label, file in sorted(found.index):
        yield os.path.join(found.root, found.all_categories[label], file), label


def _split(*names: str, **options) -> list[dict]:
    return [dict(split=name, **options) for name in names]


_TWO = dict(train=_split('train'), test=_split('test'))
_THREE = dict(train=_split('train', 'val'), test=_split('test'))
_BOTH = 'train: the official train and val together'
_BOOL = dict(train=[dict(train=True)], test=[dict(train=False)])
SETS = {
    'cifar10': RawSet('CIFAR10', _BOOL),
    'cifar100': RawSet('CIFAR100', _BOOL),
    'mnist': RawSet('MNIST', _BOOL),
    'fashion_mnist': RawSet('FashionMNIST', _BOOL),
    'stl10': RawSet('STL10', _TWO, note='train: the 5,000 labelled images, without folds'),
    'svhn': RawSet('SVHN', _TWO, note='train: without the extra images'),
    'dtd': RawSet('DTD', _THREE, _files('_image_files'), f'{_BOTH}, of the first of ten partitions'),
    'flowers102': RawSet('Flowers102', _THREE, _files('_image_files'), _BOTH),
    'fgvc_aircraft': RawSet('FGVCAircraft', _THREE, _files('_image_files'), f'{_BOTH}; 100 variants'),
    'food101': RawSet('Food101', _TWO, _files('_image_files')),
    'gtsrb': RawSet('GTSRB', _TWO, _pairs),
    'oxford_iiit_pet': RawSet(
        'OxfordIIITPet', dict(train=_split('trainval'), test=_split('test')), _files('_images'), '37 breeds'
    ),
    'stanford_cars': RawSet('StanfordCars', _TWO, _pairs),
    'inaturalist': RawSet(
        'INaturalist', dict(train=[dict(version='2021_train')], val=[dict(version='2021_valid')]), _inaturalist, '2021'
    ),
    'inaturalist_mini': RawSet(
        'INaturalist',
        dict(train=[dict(version='2021_train_mini')], val=[dict(version='2021_valid')]),
        _inaturalist,
        '2021, train: 50 images of each class',
    ),
}
NO_SPLIT = ('caltech101', 'caltech256', 'sun397', 'eurosat')


def open_parts(name: str, root: str | Path, download: bool = False) -> dict[str, list]:
    """The parts of a raw set below ``root``, as torchvision opens them: folder -> its datasets.

    Raises:
        DataError: an unknown name, one without an official split, or raw files that are missing or are not the
            published ones.
    """
    from torchvision import datasets

    if name not in SETS:
        split = ' has no official split in torchvision: lay it out yourself, and say how it was divided'
        raise DataError(f'{name!r}{split if name in NO_SPLIT else " is none of " + ", ".join(SETS)}')
    kind, found = getattr(datasets, SETS[name].kind), {}
    if not download and not Path(root).is_dir():
        raise DataError(f"there is no folder '{root}' with the raw files of {name}: name it, or add --download")
    for part, several in SETS[name].parts.items():
        found[part] = []
        for options in several:
            try:
                found[part].append(kind(str(root), **options, download=download))
            except (RuntimeError, OSError, ValueError) as error:
                raise DataError(
                    f"the raw files of {name} in '{root}' are missing or are not the published ones ({error}): fetch "
                    'them anew, or add --download'
                ) from error
    return found


def lay_out(
    name: str,
    root: str | Path,
    out: str | Path,
    download: bool = False,
    link: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, int]:
    """Lay a set out below ``out``, which must not be there; it appears whole or not at all.

    Args:
        root: where the raw files are, as torchvision's classes take it.
        link: hard links in place of copies, on one file system and only of sets that are made of files.

    Returns:
        Images of each part. ``out/class_folders.json`` has them, with the set, torchvision's version and the note.

    Raises:
        DataError: see :func:`open_parts`; ``out`` is there; classes or files whose names cannot be kept apart; links of
            arrays. NotWritten, OSError: a disk that is full, links across file systems.
    """
    import torchvision

    out = Path(out)
    if os.path.lexists(out):
        raise DataError(f"'{out}' is there and is not overwritten: name another folder, or remove it first")
    raw = SETS.get(name)
    if raw and link and raw.paths is None:
        raise DataError(f'{name} is arrays and not files: leave --link out')
    parts = open_parts(name, root, download)
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f'.{out.name}.', suffix='.tmp', dir=out.parent))
    try:
        names, counts = _class_names(raw, [found for several in parts.values() for found in several]), {}
        for part, several in parts.items():
            counts[part] = sum(_write(found, raw, names, temporary / part, link) for found in several)
            say(f'{part}: {counts[part]:,} images')
        about = dict(set=name, torchvision=torchvision.__version__, images=counts, note=raw.note, linked=link)
        files.write_json(temporary / 'class_folders.json', about)
        temporary.chmod(0o777 & ~_umask())  # mkdtemp makes it for its owner alone
        os.rename(temporary, out)
    except OSError as error:
        told = files.not_written(error, out)
        if told is None or told is error:
            raise
        raise told from error
    finally:
        with suppress(OSError):
            shutil.rmtree(temporary)
    return counts


def _umask() -> int:
    found = os.umask(0)
    os.umask(found)
    return found


def _write(found, raw: RawSet, names: list[str], folder: Path, link: bool) -> int:
    """One dataset of torchvision into ``folder``, a folder for each of the class ``names``; how many images it has."""
    for name in names:
        (folder / name).mkdir(parents=True, exist_ok=True)
    if raw.paths is None:
        width = len(str(len(found) - 1))
        for number in range(len(found)):
            image, label = found[number]
            image.save(folder / names[int(label)] / f'{number:0{width}}.png')
        return len(found)
    count = 0
    for path, label in raw.paths(found):
        target = folder / names[int(label)] / Path(path).name
        if not target.name.lower().endswith(SUFFIXES) or is_hidden(target.name):
            raise DataError(f"'{path}' has an ending or a name that is not taken for an image: take it out")
        if target.exists():
            raise DataError(f"two images of class '{target.parent.name}' are called '{target.name}': rename one")
        try:
            os.link(os.path.realpath(path), target) if link else shutil.copy2(path, target)
        except OSError as error:
            if error.errno == errno.EXDEV:
                raise DataError(f"'{folder}' and '{path}' are on two file systems: leave --link out") from error
            raise
        count += 1
    return count


def _class_names(raw: RawSet, several: list) -> list[str]:
    """A folder name for each label: the name of the class where the set has them, else its number.

    Raises:
        DataError: two classes would share a folder, or the parts name their classes differently.
    """
    given = [list(getattr(found, 'all_categories', None) or getattr(found, 'classes', ())) for found in several]
    if any(names != given[0] for names in given):
        raise DataError('the parts have different classes: a part of the raw files is missing, fetch them anew')
    names = given[0]
    if not names:
        labels = [[label for _, label in raw.paths(found)] if raw.paths else found.labels for found in several]
        count = 1 + max(int(max(part)) for part in labels)
        names = [f'{label:0{len(str(count - 1))}}' for label in range(count)]
    folders = [str(name).strip().replace(os.sep, '-') for name in names]
    if len({name.lower() for name in folders}) < len(folders) or not all(folders) or any(map(is_hidden, folders)):
        raise DataError(f'the classes {names[:5]} ... make no folder names that can be kept apart')
    return folders
