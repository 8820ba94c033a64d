"""Classification from few labels: logistic regression on frozen features of some of the training images.

The published splits (1 %: 12,811 images of ImageNet, 10 %: 128,116; SimCLR v2; 1, 2 and 5 images a class: MSN) are
lists of file names, which the user gives as a file. Without one, a draw of our own is used and named as such, a part of
each class or a number of its images. Features are L2-normalised as in
iBOT's and MSN's evaluation; the strength of the regularisation is chosen on a held-out part of the few labelled
training images (DINOv2 holds out 10 % of train), then the classifier is fitted again on all of them. Validation images
are looked at once, by the finished classifier.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from mim_mm.evaluation.frozen.features import Features
from mim_mm.folders import in_hidden

__all__ = [
    'CS',
    'Fit',
    'Split',
    'draw_shots',
    'draw_split',
    'fit',
    'hold_out',
    'low_shot',
    'ranked',
    'read_split',
    'scores',
]

CS = tuple(10.0 ** (x / 2) for x in range(-4, 9))  # 0.01 .. 10,000; scikit-learn's C multiplies the sum of the losses
HELD_OUT = 0.2


@dataclass(frozen=True)
class Split:
    """The labelled training images: rising indices into the train features, and where they come from.

    ``draw``: what several draws have in common, ``fraction`` or ``shots`` with its value and the ``seed`` apart; {} of
    a list.
    """

    name: str
    indices: np.ndarray
    source: str
    draw: dict = field(default_factory=dict)


def draw_split(labels: Tensor, fraction: float, seed: int = 0) -> Split:
    """Our own draw: of each class ``fraction`` of its images, rounded half up, at least one.

    The order within a class depends on the seed and the class only, so a smaller fraction is part of a larger one.

    Args:
        labels: (N,) classes from 0.
        fraction: above 0, at most 1.

    Raises:
        ValueError: the fraction is outside.
    """
    if not 0 < fraction <= 1:
        raise ValueError(f'fraction {fraction} must be above 0 and at most 1: 0.01 means 1 %')
    values = np.asarray(labels)
    counts = {
        int(label): max(1, int(np.floor(fraction * size + 0.5)))
        for label, size in zip(*np.unique(values, return_counts=True))
    }
    source = f'own stratified draw, seed {seed} (not the published list)'
    draw = dict(fraction=fraction, seed=seed)
    return Split(f'{100 * fraction:g}%-seed{seed}', _first(values, counts, seed), source, draw)


def draw_shots(labels: Tensor, shots: int, classes: Sequence[str], seed: int = 0) -> Split:
    """Our own draw: ``shots`` images of each class.

    In the order of :func:`draw_split`: a smaller draw is part of a larger one of the same seed, of either kind.

    Args:
        labels: (N,) classes from 0. shots: at least 1. classes: the names of all, in label order.

    Raises:
        ValueError: a class has fewer images, which is named; or no shots.
    """
    values = np.asarray(labels)
    sizes = np.bincount(values, minlength=len(classes))
    if shots < 1:
        raise ValueError(f'--shots {shots} must be at least 1: it is a number of images of each class')
    if sizes.min() < shots:
        least = int(sizes.argmin())
        raise ValueError(
            f"class '{classes[least]}' has {sizes[least]} training images, and {shots} of each class are wanted: take "
            'fewer, or leave the class out'
        )
    counts = dict.fromkeys(range(len(classes)), shots)
    source = f'own draw of {shots} a class, seed {seed} (not a published list)'
    return Split(f'{shots}-shot-seed{seed}', _first(values, counts, seed), source, dict(shots=shots, seed=seed))


def _first(values: np.ndarray, counts: dict[int, int], seed: int) -> np.ndarray:
    """Rising indices: of each class so many of its images, the first in an order that seed and class decide."""
    chosen = [
        np.random.default_rng([seed, label]).permutation(np.flatnonzero(values == label))[:count]
        for label, count in counts.items()
    ]
    return np.sort(np.concatenate(chosen))


def read_split(file: str | Path, names: Sequence[str]) -> Split:
    """A published list: one image a line, as ``class/file`` or, where file names are unique, as ``file``.

    Args:
        file: text; empty lines are skipped.
        names: of the train features, relative to the train folder.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the list is empty, names an image twice, one that is not there, or one that several classes have.
    """
    lines = [line.strip() for line in Path(file).read_text(encoding='utf-8-sig').splitlines()]
    lines = [line for line in lines if line and not in_hidden(line)]
    if not lines:
        raise ValueError(f'{file} lists no image: one file name a line is expected')
    place = {name: i for i, name in enumerate(names)}
    bare = Counter(PurePosixPath(name).name for name in names)
    place.update({PurePosixPath(n).name: i for i, n in enumerate(names) if bare[PurePosixPath(n).name] == 1})
    lost = [line for line in lines if line not in place]
    if lost:
        why = 'is in several classes: write class/file' if bare[lost[0]] > 1 else 'is not in the train folder'
        raise ValueError(f'{file}: {len(lost)} of {len(lines)} names fit no image; the first, {lost[0]!r}, {why}')
    indices = np.sort([place[line] for line in lines])
    twice = indices[1:][indices[1:] == indices[:-1]]
    if len(twice):
        raise ValueError(f'{file} lists {names[twice[0]]} twice ({len(twice)} repetitions): remove them')
    return Split(Path(file).stem, indices, f'list {Path(file).name}')


def hold_out(labels: np.ndarray, part: float = HELD_OUT, seed: int = 0) -> np.ndarray:
    """True (N,) for what is held out: of a class of n >= 2 images ``part`` rounded, 1 to n - 1; of one none."""
    held = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        places = np.flatnonzero(labels == label)
        count = min(max(1, int(np.floor(part * len(places) + 0.5))), len(places) - 1)
        held[np.random.default_rng([seed, int(label), 1]).permutation(places)[:count]] = True
    return held


@dataclass
class Fit:
    """A finished classifier and how its C was chosen; ``held_out`` maps each C to its top-1 in per cent."""

    model: object
    C: float
    held_out: dict[float, float]
    fitted_on: int
    chosen_on: int
    converged: bool


def fit(features: Tensor, labels: Tensor, cs: Sequence[float] = CS, seed: int = 0, max_iter: int = 1000) -> Fit:
    """Multinomial logistic regression (L-BFGS, with intercept) on the labelled images, and on nothing else.

    Args:
        features: (n, D) of the labelled images; L2-normalised here. labels: (n,).
        cs: values of scikit-learn's C to try; among equals the smallest wins.

    Returns:
        The fit on all n images with the C that did best on the held-out part. Where every class has one image nothing
        can be held out: then C is the middle of ``cs``, and ``held_out`` is empty.

    Raises:
        ValueError: fewer than two classes, or no C.
    """
    x, y, cs = F.normalize(features.double(), dim=1).numpy(), np.asarray(labels), sorted(cs)
    if len(np.unique(y)) < 2 or not cs:
        raise ValueError(f'{len(np.unique(y))} classes and {len(cs)} values of C: at least 2 and 1 are needed')
    held = hold_out(y, seed=seed)
    results: dict[float, float] = {}
    if held.any() and len(cs) > 1:
        model = None
        for c in cs:  # rising, each from the last optimum: the problem is convex, so this saves time only
            model = _regression(x[~held], y[~held], c, max_iter, model)
            results[c] = 100 * float((model.predict(x[held]) == y[held]).mean())
    best = max(results, key=results.get) if results else cs[len(cs) // 2]
    model = _regression(x, y, best, max_iter)
    converged = int(np.max(model.n_iter_)) < max_iter
    return Fit(model, best, results, len(y), int(held.sum()) if results else 0, converged)


def _regression(x: np.ndarray, y: np.ndarray, c: float, max_iter: int, before=None):
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    model = before or LogisticRegression(max_iter=max_iter, warm_start=True)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', ConvergenceWarning)  # said once, as Fit.converged
        return model.set_params(C=c).fit(x, y)


def ranked(model, features: Tensor) -> np.ndarray:
    """The (at most five) most probable classes of each image, (N, 5), the best first; features are normalised here."""
    chances = model.predict_proba(F.normalize(features.double(), dim=1).numpy())
    return model.classes_[np.argsort(-chances, axis=1, kind='stable')[:, :5]]


def scores(model, features: Tensor, labels: Tensor) -> dict[str, float]:
    """Top-1 and top-5 in per cent over all images, also those of classes that the classifier never saw.

    Args:
        features: (N, D), L2-normalised here. labels: (N,).
    """
    hit = ranked(model, features) == np.asarray(labels)[:, None]
    return dict(top1=100 * float(hit[:, 0].mean()), top5=100 * float(hit.any(1).mean()))


def low_shot(train: Features, val: Features, split: Split, cs: Sequence[float] = CS, seed: int = 0) -> dict:
    """Fit on the split and score on val, for each pooling the backbone has.

    Returns:
        ``dict(split, source, draw, images, classes, classes_seen, queries, results={pooling: dict(top1, top5, C,
        C_at_edge, held_out, chosen_on, converged)})``; ``C_at_edge``: the best C is the first or last that was tried.
    """
    labels = train.labels[split.indices]
    results = {}
    for pooling in train.poolings:
        done = fit(train.get(pooling)[split.indices], labels, cs, seed)
        edge = bool(done.held_out) and done.C in (min(cs), max(cs))
        results[pooling] = dict(scores(done.model, val.get(pooling), val.labels), C=done.C, C_at_edge=edge)
        held = {f'{c:g}': value for c, value in done.held_out.items()}
        results[pooling].update(held_out=held, chosen_on=done.chosen_on, converged=done.converged)
    return dict(
        split=split.name,
        source=split.source,
        draw=split.draw,
        images=len(split.indices),
        classes=len(train.classes),
        classes_seen=len(labels.unique()),
        queries=len(val.labels),
        results=results,
    )


def table(result: dict) -> str:
    """One split of :func:`low_shot` as text."""
    lines = [
        f'{result["split"]}: {result["images"]} images of {result["classes_seen"]} of {result["classes"]} classes, '
        f'{result["source"]}',
        f'{"pooling":<10}{"top-1":>9}{"top-5":>9}{"C":>10}',
    ]
    for pooling, v in result['results'].items():
        notes = (' at the edge of what was tried' * v['C_at_edge']) + (' not converged' * (not v['converged']))
        notes += ' not chosen: nothing to hold out' * (not v['chosen_on'])
        lines.append(f'{pooling:<10}{v["top1"]:>9.2f}{v["top5"]:>9.2f}{v["C"]:>10.4g}{notes}')
    return '\n'.join(lines)
