"""Images with masks of classes, one number a pixel: pairs of files, and the numbers that the masks hold.

    DIR/images/*            DIR/masks/*             one set, divided by a seed
    DIR/images/train/*      DIR/masks/train/*       or both parts (val, valid, validation, test)
    DIR/images/val/*        DIR/masks/val/*
    DIR/classes.txt         ``NUMBER NAME`` a line (optional); ``NUMBER -`` is not learnt and not counted

A mask goes by the name of its image, whatever the ending. Which number is which class is decided once for the whole
set, here; a number that was not seen then stops a training, since any other reading of it would be a guess.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from mim_mm import files
from mim_mm.data.coco_images import decoded_size
from mim_mm.data.decode import reason
from mim_mm.data.image_header import check_pixels, pillow_image
from mim_mm.data.image_sources import SourceError, open_source
from mim_mm.folders import DataError, subfolders

IGNORE = 255  # what mmseg passes over, in the loss and in every figure
MASK_FOLDERS = ('masks', 'annotations', 'labels')
TRAIN_NAMES = ('train', 'training')
VAL_NAMES = ('val', 'valid', 'validation', 'test')
NOT_LEARNT = '-'


@dataclass(frozen=True)
class MaskSet:
    """Pairs ``(image, mask)`` relative to ``root``; ``values[i]`` is the number of class i, ``ignored`` of none."""

    root: str
    classes: tuple[str, ...]
    values: tuple[int, ...]
    ignored: tuple[int, ...]
    train: tuple[tuple[str, str], ...]
    val: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]

    def text(self, part: str) -> str:
        """A list of ``mim_mm.MaskPairs``: image, tab, mask."""
        return ''.join(f'{image}\t{mask}\n' for image, mask in getattr(self, part))


def read_mask(path: str) -> np.ndarray:
    """The numbers of a mask, (H, W); those of a palette are its indices.

    Raises:
        DataError: it is no image, or has colours instead of numbers; with its path.
    """
    Image = pillow_image()
    try:
        with files.open_regular(path) as file, Image.open(file) as image:
            check_pixels(*image.size)
            bands = image.getbands()
            pixels = np.array(image)
    except Exception as error:  # Pillow's plugins raise anything
        raise SourceError(f"mask '{path}' cannot be read: {reason(error)}") from error
    if len(bands) != 1 or pixels.ndim != 2 or pixels.dtype.kind not in 'biu':
        raise SourceError(
            f"mask '{path}' has {len(bands)} channels ({', '.join(bands)}, {pixels.dtype}): save one whole number a "
            'pixel, as a grey or palette PNG'
        )
    return pixels


def read_masks(root: str, fraction: float = 0.2, seed: int = 0) -> MaskSet:
    """Find the pairs below a folder, read every mask, and number the classes.

    Args:
        fraction: of the pairs for validation, where there is no folder of them.
        seed: of that division.

    Raises:
        DataError: no pairs, an image and its mask of different sizes, a number that ``classes.txt`` does not list, or
            fewer than two classes; the message names the file.
    """
    if not 0 < fraction < 1:
        raise SourceError(f'--val-fraction {fraction} must be between 0 and 1')
    train, val, how, notes = _parts(root, fraction, seed)
    seen, turned = _survey(root, [*train, *val])
    if turned:
        notes.append(
            f'{turned} images are turned by what a camera noted (EXIF): their masks must be of the turned ones'
        )
    classes, values, ignored, said = _number_classes(root, seen)
    notes += said
    held = f'{len(classes)} classes, {len(train):,} training and {len(val):,} validation images ({how})'
    return MaskSet(root, classes, values, ignored, tuple(train), tuple(val), (held, *notes))


# ---- pairs


def _parts(root: str, fraction: float, seed: int) -> tuple[list, list, str, list[str]]:
    inside = subfolders(root) if os.path.isdir(root) else []
    folder = next((name for name in MASK_FOLDERS if name in inside), None)
    if 'images' not in inside or folder is None:
        raise SourceError(f"'{root}' must hold images/ and masks/ with a mask for each image, of the same name")
    parts = subfolders(os.path.join(root, 'images'))
    first = next((name for name in TRAIN_NAMES if name in parts), '')
    second = next((name for name in VAL_NAMES if name in parts), None) if first else None
    train, notes = _pairs(root, folder, first)
    if second:
        val, more = _pairs(root, folder, second)
        return train, val, f'{second}/', notes + more
    if len(train) < 4:
        raise SourceError(f"'{root}' has {len(train)} images with masks; at least four are needed to divide them")
    count = min(max(1, round(fraction * len(train))), len(train) - 1)
    order = np.random.default_rng(seed).permutation(len(train))
    kept, held = ([train[i] for i in sorted(part)] for part in (order[count:], order[:count]))
    return kept, held, f'{fraction:g} of the images, divided by seed {seed}', notes


def _pairs(root: str, folder: str, part: str) -> tuple[list[tuple[str, str]], list[str]]:
    images, masks = (_by_stem(os.path.join(root, top, part), os.path.join(top, part)) for top in ('images', folder))
    both = sorted(images.keys() & masks.keys())
    if not both:
        raise SourceError(
            f"no image in '{os.path.join(root, 'images', part)}' has a mask of its name in "
            f"'{os.path.join(root, folder, part)}', e.g. {_example(images)} and {_example(masks)}"
        )
    notes = []
    for what, alone in (('images without a mask', images), ('masks without an image', masks)):
        count = len(alone) - len(both)
        if count:
            name = min(alone[stem] for stem in alone.keys() - set(both))
            notes.append(f'{count} {what} left out, e.g. {name}')
    return [(images[stem], masks[stem]) for stem in both], notes


def _by_stem(folder: str, relative: str) -> dict[str, str]:
    """Name without ending -> path relative to the root."""
    if not os.path.isdir(folder):
        raise SourceError(f"there is no folder '{folder}'")
    found: dict[str, str] = {}
    for place in open_source(folder).places:
        stem, path = os.path.splitext(place.name)[0], os.path.join(relative, place.name)
        if any(c in path for c in '\t\n\r') or any('\ud800' <= c <= '\udfff' for c in path):
            raise SourceError(
                f'{path!r}: no list can hold a name with a tab, a line break or outside of UTF-8; rename it'
            )
        if stem in found:
            raise SourceError(f"'{found[stem]}' and '{path}' have one name: which is meant is not said; remove one")
        found[stem] = path
    return found


def _example(found: dict[str, str]) -> str:
    return repr(min(found.values())) if found else 'nothing'


# ---- numbers


def _survey(root: str, pairs: Sequence[tuple[str, str]]) -> tuple[dict[int, str], int]:
    """Each number with the first mask that has it, and how many images are turned; every mask is read."""
    seen: dict[int, str] = {}
    turned = 0
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        for (_, mask), (numbers, is_turned) in zip(pairs, pool.map(lambda pair: _look(root, *pair), pairs)):
            turned += is_turned
            for number in numbers:
                seen.setdefault(number, mask)
    return seen, turned


def _look(root: str, image: str, mask: str) -> tuple[list[int], bool]:
    pixels = read_mask(os.path.join(root, mask))
    try:
        size = decoded_size(os.path.join(root, image))
    except Exception as error:  # Pillow's plugins raise anything
        raise SourceError(f"image '{os.path.join(root, image)}' cannot be read: {reason(error)}") from error
    if pixels.shape != (size.height, size.width):
        turned = ' once it is turned as its camera noted' if size.turned else ''
        raise SourceError(
            f"mask '{mask}' is {pixels.shape[1]} x {pixels.shape[0]} px, its image '{image}' {size.width} x "
            f'{size.height}{turned}: they must be of one size'
        )
    return np.unique(pixels).astype(np.int64).tolist(), size.turned


def _number_classes(root: str, seen: dict[int, str]) -> tuple[tuple, tuple, tuple, list[str]]:
    """Names and numbers of the classes, numbers of none, and what was decided, in words."""
    path = os.path.join(root, 'classes.txt')
    notes: list[str] = []
    if os.path.isfile(path):
        named = read_classes(path)
        strange = sorted(set(seen) - set(named) - {IGNORE})
        if strange:
            raise SourceError(
                f"mask '{seen[strange[0]]}' has the number {strange[0]}, which '{path}' does not list: add "
                f"'{strange[0]} NAME', or '{strange[0]} {NOT_LEARNT}' to leave its pixels out"
            )
    elif set(seen) <= {0, IGNORE}:  # what drawing programs save for "this or not"
        named = {value: str(value) for value in seen}
        notes.append('the masks hold 0 and 255 alone: two classes')
    else:
        named = {value: str(value) for value in sorted(seen) if value != IGNORE}
    values = tuple(value for value, name in named.items() if name != NOT_LEARNT)
    ignored = tuple(sorted({value for value, name in named.items() if name == NOT_LEARNT} | ({IGNORE} - set(values))))
    if not 2 <= len(values) < IGNORE:
        raise SourceError(f"'{root}': the masks have {len(values)} classes; 2 to {IGNORE - 1} can be learnt")
    if set(seen) & set(ignored):
        notes.append(f'pixels of the number {", ".join(map(str, sorted(set(seen) & set(ignored))))} are not learnt')
    absent = [named[value] for value in values if value not in seen]
    if absent:
        notes.append(f'no mask has {len(absent)} of the classes, e.g. {absent[0]}')
    return tuple(named[value] for value in values), values, ignored, notes


def read_classes(path: str) -> dict[int, str]:
    """``NUMBER NAME`` a line, in the order of the file.

    Raises:
        DataError: another line, or a number or name twice; with its place.
    """
    named: dict[int, str] = {}
    with open(path, encoding='utf-8-sig') as file:
        lines = file.read().splitlines()
    for place, line in enumerate(lines, 1):
        if not line.strip():
            continue
        number, _, name = line.strip().partition(' ')
        if not number.isdecimal() or not name.strip():
            raise DataError(f"'{path}', line {place}: {line!r} must be NUMBER NAME, e.g. '3 road'")
        name = name.strip()
        if int(number) in named or (name in named.values() and name != NOT_LEARNT):
            raise DataError(f"'{path}', line {place}: {line!r} names a number or a class a second time")
        named[int(number)] = name
    return named
