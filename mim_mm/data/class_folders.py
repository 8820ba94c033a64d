"""A tree with a folder a class, as lists of images with labels: ``train`` and ``val`` below it, or one tree divided."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mim_mm.data.image_sources import SourceError
from mim_mm.folders import same_numbering, subfolders

VAL_NAMES = ('val', 'valid', 'validation', 'test')


@dataclass(frozen=True)
class ClassLists:
    """Images of both parts as ``(path relative to the root, label)``; ``classes`` sorted by name."""

    classes: tuple[str, ...]
    train: tuple[tuple[str, int], ...]
    val: tuple[tuple[str, int], ...]
    how: str  # in words, where the validation images come from

    def text(self, part: str) -> str:
        """An annotation file of mmpretrain's ``CustomDataset``: path, blank, label."""
        return ''.join(f'{name} {label}\n' for name, label in getattr(self, part))


def tree_parts(root: str) -> tuple[str, str | None]:
    """Folders of the training and validation images below ``root``, relative to it; None: to be divided.

    Raises:
        SourceError: there is no such folder, or no class folders in it.
    """
    if not os.path.isdir(root):
        raise SourceError(
            f"there is no folder '{root}'; expected ROOT/<class>/* or ROOT/train/<class>/*, ROOT/val/<class>/*"
        )
    inside = set(subfolders(root))
    if 'train' in inside:
        return 'train', next((name for name in VAL_NAMES if name in inside), None)
    if not inside:
        raise SourceError(f"'{root}' has no folders, one a class; expected ROOT/<class>/*, or ROOT/train/<class>/*")
    return '', None


def class_lists(
    root: str, train: str, val: str | None, names: dict[str, Sequence[str]], fraction: float = 0.2, seed: int = 0
) -> ClassLists:
    """Labels from folders.

    Args:
        root: the tree.
        train, val: its parts, as :func:`tree_parts` gives them.
        names: part -> readable images as paths relative to that part (``<class>/...``).
        fraction: of each class for validation, where there is no ``val``; at least one image, and one stays.
        seed: of that division, which depends on nothing else but the sorted names in the class.

    Raises:
        SourceError: fewer than two classes with images, or too few images.
        DataError: a class in ``val`` only.
    """
    if not 0 < fraction < 1:
        raise SourceError(f'--val-fraction {fraction} must be between 0 and 1')
    groups = _by_class(names[train])
    classes = tuple(sorted(groups))
    if len(classes) < 2:
        raise SourceError(
            f"'{os.path.join(root, train)}' has images of {len(classes)} class(es); two or more are needed"
        )
    labels = {name: label for label, name in enumerate(classes)}
    if val is not None:
        other = _by_class(names[val])
        same_numbering(list(other), classes, f"'{os.path.join(root, val)}'", f"'{os.path.join(root, train)}'")
        held, kept = other, groups
        how = f'{val}/'
    else:
        held, kept = {}, {}
        for name, members in groups.items():
            members = sorted(members)
            count = min(max(1, round(fraction * len(members))), len(members) - 1)
            order = np.random.default_rng([seed, labels[name]]).permutation(len(members))
            held[name] = [members[i] for i in sorted(order[:count])]
            kept[name] = [members[i] for i in sorted(order[count:])]
        how = f'{fraction:g} of each class, divided by seed {seed}'
    lists = [
        tuple((os.path.join(folder, path), labels[name]) for name in sorted(part) for path in part[name])
        for folder, part in ((train, kept), (train if val is None else val, held))
    ]
    for what, rows in zip(('training', 'validation'), lists):
        if len(rows) < 2:
            raise SourceError(f"'{root}' gives {len(rows)} {what} images; at least two are needed")
    return ClassLists(classes, lists[0], lists[1], how)


def _by_class(paths: Sequence[str]) -> dict[str, list[str]]:
    """First folder -> images below it. Images in no folder have no class; names outside of UTF-8 fit into no list."""
    groups: dict[str, list[str]] = {}
    for path in paths:
        name, _, rest = path.partition(os.sep)
        if rest and not any('\ud800' <= letter <= '\udfff' for letter in path):
            groups.setdefault(name, []).append(path)
    return groups
