"""The masks of a COCO file: polygons and run lengths as people write them, to those that pycocotools and mmdet read."""

from __future__ import annotations

import ast
from collections.abc import Callable
from typing import Any

import numpy as np

from mim_mm.data.coco_rows import number, numbers

FAR = 4  # image sides: a corner further away means nothing, and costs pycocotools a step a pixel on the way to it


class OtherSize(ValueError):
    """A run-length code of another size than its image."""


def clean_mask(shape: Any, height: int, width: int, note: Callable[[str], None]) -> list | dict | None:
    """What is usable of a ``segmentation``: polygons, or a run-length code; None without any.

    Args:
        shape: from the file.
        height, width: of the image as it is decoded, in pixels.
        note: told, in words, of each part that is mended or dropped.

    Raises:
        OtherSize: run lengths of another size.
    """
    if isinstance(shape, dict):
        return _clean_runs(shape, height, width, note)
    if not isinstance(shape, (list, tuple)) or not shape:
        return None
    parts = _parts(shape, note)
    usable = [part for part in (_clean_polygon(p, height, width, note) for p in parts) if part is not None]
    same = parts is shape and len(usable) == len(parts) and all(a is b for a, b in zip(usable, parts))
    return shape if same else usable or None


def _parts(shape: list, note: Callable[[str], None]) -> list:
    """The polygons of an annotation, from a flat list of numbers or a list of points too."""
    if not any(isinstance(part, (list, tuple, dict)) for part in shape):
        note('polygons written as one flat list, put into a list')
        return [shape]
    if len(shape) > 2 and all(_is_point(part) for part in shape):
        note('polygons written as points [x, y], joined')
        return [[value for point in shape for value in point]]
    if any(isinstance(p, (list, tuple)) and len(p) > 2 and all(_is_point(point) for point in p) for p in shape):
        note('polygons written as points [x, y], joined')
        pointed = [isinstance(p, (list, tuple)) and all(_is_point(point) for point in p) for p in shape]
        return [[v for point in p for v in point] if yes else p for p, yes in zip(shape, pointed)]
    return shape


def _is_point(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and len(value) == 2 and all(number(v) is not None for v in value)


def _clean_polygon(part: Any, height: int, width: int, note: Callable[[str], None]) -> list | None:
    values = numbers(part)
    if values is None:
        note('parts of masks with something that is no finite number, dropped')
    elif len(values) < 6 or len(values) % 2:
        note('parts of masks of fewer than three corners, or with half a corner, dropped')
    elif not _near(values[::2], width) or not _near(values[1::2], height):
        note('parts of masks outside of their image, dropped')
    else:
        if values is not part:
            note('polygons with numbers written as text, made numbers')
        return values
    return None


def _near(values: list, side: int) -> bool:
    low, high = min(values), max(values)
    return low < side and high > 0 and low >= -FAR * side and high <= (FAR + 1) * side


def _clean_runs(shape: dict, height: int, width: int, note: Callable[[str], None]) -> dict | None:
    counts, size = shape.get('counts'), shape.get('size')
    given = numbers(size) if size is not None else None
    if given is not None and list(given) != [height, width]:
        raise OtherSize(f'its run lengths are of size {given} (height, width), its image is {[height, width]}')
    plain = _plain_counts(counts)
    runs = plain if plain is None or isinstance(plain, list) else run_lengths(plain)
    if runs is None or not _fills(runs, height * width):
        note('masks whose run lengths do not fill the image, or mark nothing, dropped')
        return None
    if plain is not counts:
        note('run lengths written as bytes or with numbers as text, mended')
    if given is None:
        note("run lengths without a size, given the image's")
    # '90' and 90.0 for 90 are types that pycocotools refuses
    whole = given is not None and all(type(v) is int for v in size) and type(size) is list
    if given is not None and not whole:
        note('sizes of run lengths written as text or fractions, made whole numbers')
    return shape if plain is counts and whole else dict(shape, size=[height, width], counts=plain)


def _plain_counts(counts: Any) -> list | str | None:
    """Whole numbers, or the compressed text; bytes, and the text ``b'...'`` of bytes, as text."""
    if isinstance(counts, str) and counts[:2] in ("b'", 'b"') and counts[-1:] == counts[1]:
        try:
            counts = ast.literal_eval(counts)
        except (ValueError, SyntaxError):
            return None
    if isinstance(counts, (bytes, bytearray)):
        counts = counts.decode('latin-1')
    if isinstance(counts, str):
        return counts or None
    if isinstance(counts, list) and set(map(type, counts)) == {int}:
        return counts
    values = numbers(counts)
    if not values or any(value != int(value) for value in values):
        return None
    return [int(value) for value in values]


def _fills(runs, pixels: int) -> bool:
    """Lengths that are not negative, cover the image, and mark at least one pixel (each second one is foreground)."""
    return bool(len(runs) > 1 and min(runs) >= 0 and sum(runs) == pixels and max(runs[1::2]) > 0)


def run_lengths(text: str) -> list[int] | None:
    """Lengths out of COCO's compressed text; None where it is none.

    Groups of 5 bits from the lowest, 32 for "more follows", all plus 48; from the fourth on a length is less the one
    two before it (pycocotools' ``rleFrString``).
    """
    try:
        letters = np.frombuffer(text.encode('ascii'), np.uint8).astype(np.int64) - 48
    except UnicodeEncodeError:
        return None
    if not len(letters) or letters.min() < 0 or letters.max() > 63 or letters[-1] & 32:
        return None
    last = (letters & 32) == 0
    number_of = np.cumsum(last) - last
    start = np.flatnonzero(np.append(True, last[:-1]))
    place = np.arange(len(letters)) - start[number_of]
    if place.max() > 9:  # 50 bits: more pixels than any image has
        return None
    values = np.zeros(int(last.sum()), np.int64)
    np.add.at(values, number_of, (letters & 31) << (5 * place))
    ends = np.flatnonzero(last)
    negative = (letters[ends] & 16) != 0
    values -= np.where(negative, np.int64(1) << (5 * (place[ends] + 1)), 0)
    lengths = values.tolist()
    for i in range(3, len(lengths)):
        lengths[i] += lengths[i - 2]
    return lengths


def box_of(mask: list | dict, height: int, width: int) -> list[float] | None:
    """x, y, w, h in pixels of the smallest box around a clean mask, inside of the image; None for an empty one."""
    if isinstance(mask, list):
        xs = [min(max(x, 0), width) for part in mask for x in part[::2]]
        ys = [min(max(y, 0), height) for part in mask for y in part[1::2]]
        box = [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]
    else:
        from pycocotools import mask as mask_utils

        code = mask_utils.frPyObjects(mask, height, width) if isinstance(mask['counts'], list) else mask
        box = [float(v) for v in mask_utils.toBbox(code)]
    return box if box[2] > 0 and box[3] > 0 else None
