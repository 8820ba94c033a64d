"""What runs left class by class, ``confusion.json`` and ``per_class.json``: read, or refused with what is wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mim_mm import files
from mim_mm.report.collect import Chain, Run
from mim_mm.report.damage import faults, finite, inside

__all__ = ['CONFUSION', 'KINDS', 'PER_CLASS', 'ClassAP', 'Confusion', 'class_aps', 'confusions', 'is_own', 'one_line']

CONFUSION, PER_CLASS = 'confusion.json', 'per_class.json'
MOST = 5000  # classes: more are no result of ours
KINDS = {'bbox': 'box', 'segm': 'mask'}
CLASSIFIERS = ('linear', 'finetune')


@dataclass(frozen=True)
class Confusion:
    """A classifier on its test images.

    Attributes:
        counts: (C, C) whole numbers, images of class i that were taken for class j.
        training: images of each class that were trained on; None where that is not known.
    """

    run: Run
    classes: tuple[str, ...]
    counts: np.ndarray
    training: tuple[int, ...] | None

    @property
    def images(self) -> np.ndarray:
        """(C,) test images of each class."""
        return self.counts.sum(axis=1)

    @property
    def accuracy(self) -> float:
        return 100 * float(np.trace(self.counts)) / float(self.counts.sum())

    @property
    def by_class(self) -> list[float | None]:
        """Per cent of each class; None without test images."""
        right = np.diag(self.counts)
        return [100 * float(r) / float(n) if n else None for r, n in zip(right, self.images)]

    @property
    def majority(self) -> tuple[str, float] | None:
        """The most frequent class of the training images, and the test accuracy of always saying it, in per cent."""
        if not self.training or not any(self.training):
            return None
        most = int(np.argmax(self.training))
        return self.classes[most], 100 * float(self.images[most]) / float(self.counts.sum())

    def pairs(self, most: int) -> list[tuple[str, str, int, float]]:
        """The most frequent confusions: true class, said class, images, per cent of the true class."""
        wrong = self.counts.copy()
        np.fill_diagonal(wrong, 0)
        order = np.argsort(-wrong, axis=None, kind='stable')[:most]
        places = [divmod(int(at), len(wrong)) for at in order]
        return [
            (self.classes[i], self.classes[j], int(wrong[i, j]), 100 * float(wrong[i, j]) / float(self.images[i]))
            for i, j in places
            if wrong[i, j]
        ]


@dataclass(frozen=True)
class ClassAP:
    """A detector on its test images: ``figures[kind]`` has AP and AP50 of each class in per cent, or None."""

    run: Run
    classes: tuple[str, ...]
    boxes: tuple[int, ...]
    figures: dict[str, list[tuple[float | None, float | None]]]

    def mean(self, kind: str, place: int) -> float | None:
        known = [pair[place] for pair in self.figures[kind] if pair[place] is not None]
        return sum(known) / len(known) if known else None


def one_line(name: Any) -> str:
    """A class name as one line of letters that UTF-8 has; names of folders may be any bytes."""
    return ' '.join(str(name).encode('utf-8', 'replace').decode().split()) or '(no name)'


def confusions(chain: Chain) -> tuple[list[Confusion], list[str]]:
    """Of the first finished run of each classifying stage; and what is wrong with files that are left out."""
    return _read(chain, CLASSIFIERS, CONFUSION, _confusion)


def class_aps(chain: Chain) -> tuple[list[ClassAP], list[str]]:
    """The same of detectors."""
    return _read(chain, ('coco',), PER_CLASS, _class_ap)


def _read(chain: Chain, kinds: tuple, name: str, make: Callable[[Run, dict], Any]) -> tuple[list, list[str]]:
    found, wrong, seen = [], [], set()
    for run in (run for kind in kinds for run in chain.of(kind, done=True)):
        path = run.folder / name
        if (run.stage, run.arm) in seen or not is_own(path, run.folder):
            continue
        seen.add((run.stage, run.arm))
        try:
            content = files.read_json(path, 'a rerun writes it anew')
            if not isinstance(content, dict):
                raise ValueError(f'it holds a {type(content).__name__}, no object')
            found.append(make(run, content))
        except ValueError as error:
            wrong.append(f'`{run.name}`: {name} is damaged and left out: {error}')
    return found, wrong


def is_own(path: Path, folder: Path) -> bool:
    """Whether it is a file of a run's folder, and no link to one elsewhere."""
    try:
        return path.is_file() and inside(path, folder)
    except OSError:
        return False


def _texts(value: Any) -> bool:
    return isinstance(value, list) and 0 < len(value) <= MOST and all(isinstance(item, str) for item in value)


def _counts(value: Any) -> bool:
    """A list of numbers of images: whole, from 0 to what an array holds."""
    return isinstance(value, list) and all(type(item) is int and 0 <= item < 2**40 for item in value)


def _confusion(run: Run, content: dict) -> Confusion:
    classes, counts, training = (content.get(key) for key in ('classes', 'counts', 'training_images'))
    if not _texts(classes):
        raise ValueError(f'classes must be a list of 1 to {MOST} names')
    square = isinstance(counts, list) and len(counts) == len(classes)
    if not square or not all(_counts(row) and len(row) == len(classes) for row in counts):
        raise ValueError(
            f'counts must be {len(classes)} rows of as many whole numbers from 0, a row and a column a class'
        )
    if training is not None and not (_counts(training) and len(training) == len(classes)):
        raise ValueError(f'training_images must be {len(classes)} whole numbers from 0, or null')
    table = np.array(counts, np.int64)
    if not table.any():
        raise ValueError('counts has no image')
    made = Confusion(run, tuple(map(one_line, classes)), table, training and tuple(training))
    _same_evaluation(made.accuracy, run.metrics.get('accuracy/top1'), 0.1)
    return made


def _class_ap(run: Run, content: dict) -> ClassAP:
    rows = content.get('classes')
    if not isinstance(rows, list) or not 0 < len(rows) <= MOST or not all(isinstance(row, dict) for row in rows):
        raise ValueError(f'classes must be a list of 1 to {MOST} objects')
    kinds = [kind for kind in KINDS if any(kind in row for row in rows)]
    for row in rows:
        wrong = faults(row, {'boxes': finite, **{f'{kind}.{key}': finite for kind in kinds for key in ('AP', 'AP50')}})
        if not isinstance(row.get('name'), str) or not _counts([row.get('boxes')]):
            wrong.append('name must be text and boxes a whole number from 0')
        for kind in kinds:
            figures = row.get(kind)
            if not isinstance(figures, dict) or (figures.get('AP') is None) != (row.get('boxes') == 0):
                wrong.append(f'{kind} must be an object with an AP where there are boxes')
        if wrong:
            raise ValueError('; '.join(wrong))
    figures = {kind: [_per_cent(row[kind]) for row in rows] for kind in kinds}
    names = tuple(one_line(row['name']) for row in rows)
    made = ClassAP(run, names, tuple(row['boxes'] for row in rows), figures)
    for kind in kinds:
        _same_evaluation(made.mean(kind, 0), _times(run.metrics.get(f'coco/{kind}_mAP')), 0.1)
    return made


def _times(value: float | None) -> float | None:
    return None if value is None or value < 0 else 100 * value


def _per_cent(pair: dict) -> tuple[float | None, float | None]:
    values = [pair.get(key) for key in ('AP', 'AP50')]
    if any(value is not None and not 0 <= value <= 1 for value in values):
        raise ValueError(f'AP and AP50 must be 0 to 1 or null, they are {values}')
    return tuple(None if value is None else 100 * float(value) for value in values)


def _same_evaluation(here: float | None, there: float | None, tolerance: float) -> None:
    """The figures of a file and those of its run.json are of one evaluation."""
    if here is not None and there is not None and abs(here - there) > tolerance:
        raise ValueError(f'its figure over all classes is {here:.2f}, that of run.json {there:.2f}')
