"""Frozen features on several small labelled sets: k-NN and logistic regression, as tables of transfer report them.

Each set is a folder of class folders, ``DIR/train`` and ``DIR/test`` or ``DIR/val``. Logistic regression on features
without augmentation is the linear protocol of Kornblith et al., CVPR 2019, and so are the conventional metrics.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from mim_mm.data.class_folders import VAL_NAMES
from mim_mm.evaluation.frozen import knn, lowshot
from mim_mm.evaluation.frozen.features import Features, Source, built_once, load_or_extract
from mim_mm.evaluation.frozen.folder_images import FolderImages, Preprocess
from mim_mm.folders import DataError, subfolders

__all__ = [
    'CONVENTION',
    'K',
    'TransferSet',
    'accuracies',
    'convention',
    'mean_over',
    'measure',
    'open_sets',
    'score',
    'table',
]

K = 20
TOP1, PER_CLASS = 'top1', 'per_class'
# Kornblith et al. 2019, table 1; what DINO, DINOv2 and others report for these sets.
CONVENTION = {
    **dict.fromkeys(('aircraft', 'caltech101', 'flowers', 'pets'), PER_CLASS),
    **dict.fromkeys(('birdsnap', 'cars', 'cifar10', 'cifar100', 'dtd', 'food', 'sun397'), TOP1),
}
OTHER_NAMES = dict(
    fgvc_aircraft='aircraft', caltech='caltech101', flowers102='flowers', oxford_flowers='flowers',
    oxford_iiit_pet='pets', oxford_pets='pets', pet='pets', stanford_cars='cars', food101='food', sun='sun397',
)  # fmt: skip


def convention(name: str) -> str | None:
    """The metric that papers report for a set of this name, ``'top1'`` or ``'per_class'``; None: it is not known."""
    name = name.lower().replace('-', '_')
    return CONVENTION.get(OTHER_NAMES.get(name, name))


@dataclass(frozen=True)
class TransferSet:
    """A set as it is evaluated: both parts are listed, and nothing is read."""

    name: str
    folder: Path
    part: str
    train: FolderImages
    test: FolderImages


def open_sets(given: Sequence[str], preprocess: Preprocess, part: str | None = None, k: int = K) -> list[TransferSet]:
    """The sets of ``NAME=DIR``, every one looked at before anything runs.

    Args:
        part: the folder beside ``train`` that is reported on; None: the only one of ``val``, ``test`` and the like.
        k: of k-NN.

    Raises:
        DataError: naming every set that cannot be used, and why.
    """
    found: list[TransferSet] = []
    names: set[str] = set()
    wrong = []
    for item in given:
        name, equals, folder = item.partition('=')
        if not name or not equals or not folder:
            raise DataError(f'--sets {item!r} must be NAME=DIR')
        if name in names or '/' in name or name.startswith('.'):
            raise DataError(f'--sets: {name!r} must be a name of its own for one set, without /')
        names.add(name)
        try:
            found.append(_open(name, Path(folder), preprocess, part, k))
        except (FileNotFoundError, ValueError) as error:
            wrong.append(f'{name}: {error}')
    if wrong:
        raise DataError(f'{len(wrong)} of {len(given)} sets cannot be used, and none was run: {"; ".join(wrong)}')
    return found


def _open(name: str, folder: Path, preprocess: Preprocess, part: str | None, k: int) -> TransferSet:
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder '{folder}': it holds train/<class>/* and test/<class>/*")
    inside = [other for other in VAL_NAMES if other in subfolders(folder)]
    if part is None and len(inside) != 1:
        has = f'has {" and ".join(inside)}' if inside else f'has none of {", ".join(VAL_NAMES)}'
        raise DataError(f"'{folder}' {has}: one folder beside train is reported on, say which with --part")
    part = part or inside[0]
    train = FolderImages(folder, 'train', preprocess)
    test = FolderImages(folder, part, preprocess, train.classes)
    seen = len({label for _, label in train.items})
    if seen < 2:
        raise DataError(f"'{folder}/train' has images of {seen} class: two or more are needed")
    if not 1 <= k <= len(train):
        raise DataError(f"'{folder}/train' has {len(train)} images, and k = {k} of k-NN must be 1 to that: see --k")
    return TransferSet(name, folder, part, train, test)


def accuracies(guess: Tensor | np.ndarray, labels: Tensor | np.ndarray) -> dict[str, float]:
    """Accuracy over all images, and the mean of the accuracies of the classes that have any, in per cent.

    Args:
        guess, labels: (N,) predicted and true classes.
    """
    labels = np.asarray(labels)
    right = np.asarray(guess) == labels
    each = [right[labels == label].mean() for label in np.unique(labels)]
    return {TOP1: 100 * float(right.mean()), PER_CLASS: 100 * float(np.mean(each))}


def score(train: Features, test: Features, k: int, device: str) -> dict[str, dict]:
    """Each pooling: ``dict(knn=accuracies, logistic=dict(**accuracies, C, C_at_edge, chosen_on, converged))``."""
    found = {}
    for pooling in train.poolings:
        bank, queries = train.get(pooling), test.get(pooling)
        similarity, places = knn.nearest(queries, bank, k, device=device)
        guess = knn.guesses(similarity, train.labels[places], len(train.classes))[:, 0]
        fit = lowshot.fit(bank, train.labels)
        linear = accuracies(lowshot.ranked(fit.model, queries)[:, 0], test.labels)
        edge = bool(fit.held_out) and fit.C in (min(lowshot.CS), max(lowshot.CS))
        linear.update(C=fit.C, C_at_edge=edge, chosen_on=fit.chosen_on, converged=fit.converged)
        found[pooling] = dict(knn=accuracies(guess, test.labels), logistic=linear)
    return found


def measure(
    source: Source,
    sets: Sequence[TransferSet],
    folder: Path,
    k: int = K,
    after: Callable[[dict, dict[str, Features]], None] = lambda result, features: None,
    **extraction,
) -> dict:
    """All sets, one after the other; features are stored for each and found again.

    Args:
        folder: of stored features, with a folder for each set.
        after: called after each set with the result so far and the features of this set's ``train`` and ``test``, of
            which nothing is kept here.
        extraction: batch_size, workers, device.

    Returns:
        ``dict(k, sets={name: dict(folder, part, classes, images, convention, results)}, mean={pooling: {method:
        dict(top1, per_class, conventional)}})``. ``conventional`` is the metric of :func:`convention`, top-1 where none
        is known. The mean is over the sets that are done.

    Raises:
        DataError, FloatingPointError: in the middle, with the name of the set; what was done before is stored.
    """
    build = built_once(source)
    result: dict = dict(k=k, sets={}, mean={})
    for one in sets:
        try:
            parts = dict(train=one.train, test=one.test)
            features = {
                part: load_or_extract(source, data, folder / one.name, build, **extraction)
                for part, data in parts.items()
            }
        except (ValueError, OSError, FloatingPointError) as error:
            kind = FloatingPointError if isinstance(error, FloatingPointError) else DataError
            raise kind(f'{one.name}: {error}') from error
        results = score(features['train'], features['test'], k, extraction.get('device', 'cpu'))
        images = {part: len(data) for part, data in parts.items()}
        row = dict(folder=str(one.folder), part=one.part, classes=len(one.train.classes), images=images)
        result['sets'][one.name] = dict(row, convention=convention(one.name), results=results)
        result['mean'] = mean_over(result['sets'])
        after(result, features)
    return result


def mean_over(sets: dict[str, dict]) -> dict[str, dict]:
    """``mean`` of :func:`measure`, from its ``sets``."""
    found: dict[str, dict] = {}
    for pooling in next(iter(sets.values()))['results']:
        for method in ('knn', 'logistic'):
            rows = [(one['results'][pooling][method], one['convention'] or TOP1) for one in sets.values()]
            mean = {name: statistics.fmean(row[name] for row, _ in rows) for name in (TOP1, PER_CLASS)}
            mean['conventional'] = statistics.fmean(row[name] for row, name in rows)
            found.setdefault(pooling, {})[method] = mean
    return found


def table(result: dict) -> str:
    """The accuracies of :func:`measure` as text; the metric that is conventional for a set has a star."""
    lines = [
        f'{"":<30}{"k-NN, k = " + str(result["k"]):>18}{"logistic regression":>24}',
        f'{"set":<20}{"pooling":<10}{"top-1":>9}{"class":>9}{"top-1":>12}{"class":>9}{"C":>10}',
    ]
    for name, one in result['sets'].items():
        for pooling, v in one['results'].items():
            cells = [_starred(v[method], one['convention']) for method in ('knn', 'logistic')]
            notes = ' at the edge of what was tried' * v['logistic']['C_at_edge']
            notes += ' not converged' * (not v['logistic']['converged'])
            lines.append(f'{name:<20}{pooling:<10}{cells[0]}   {cells[1]}{v["logistic"]["C"]:>10.4g}{notes}')
    for pooling, v in result['mean'].items():
        cells = [f'{v[method][TOP1]:>8.2f} {v[method][PER_CLASS]:>8.2f} ' for method in ('knn', 'logistic')]
        lines.append(f'{"mean of " + str(len(result["sets"])):<20}{pooling:<10}{cells[0]}   {cells[1]}')
    for pooling, v in result['mean'].items():
        cells = [f'{v[method]["conventional"]:>8.2f}*{"":>9}' for method in ('knn', 'logistic')]
        lines.append(f'{"mean, conventional":<20}{pooling:<10}{cells[0]}   {cells[1]}'.rstrip())
    lines.append('class: mean accuracy of the classes; *: what papers report for this set, top-1 where it is not known')
    return '\n'.join(lines)


def _starred(found: dict, metric: str | None) -> str:
    return ''.join(f'{found[name]:>8.2f}{"*" if name == metric else " "}' for name in (TOP1, PER_CLASS))
