"""Boxes, areas and masks of the annotations of a COCO file: made usable in place, or refused with their id."""

from __future__ import annotations

from mim_mm.data import coco_images, coco_masks
from mim_mm.data.coco_rows import Findings, named, number, numbers
from mim_mm.data.image_sources import SourceError


def four_numbers(annotation: dict, findings: Findings) -> list | None:
    """x, y, w, h of a box as numbers; None where it says nothing, which the mask may."""
    given = annotation.get('bbox')
    box = numbers(given)
    if box is None or len(box) != 4:
        return None
    if box is not given:
        findings.add('boxes with numbers written as text, made numbers', annotation.get('id'))
    return box


def check_format(content: dict, path: str) -> None:
    """Stop for boxes that are of another format as a whole: corners, or fractions of the image.

    Raises:
        SourceError: most boxes leave their image, and all are boxes inside of it when read as corners; or none is
            larger than a pixel.
    """
    sizes = {row['id']: (row['width'], row['height']) for row in content['images']}
    over, corners, largest, first, count = 0, True, 0.0, None, 0
    for place, row in enumerate(content['annotations'], 1):
        if row['image_id'] not in sizes or row['bbox'] is None:
            continue
        (x, y, w, h), (width, height) = row['bbox'], sizes[row['image_id']]
        count += 1
        largest = max(largest, x, y, w, h)
        slack = coco_images.ROUNDING
        corners = corners and w > x and h > y and w <= width + slack and h <= height + slack
        if x + w > width + slack or y + h > height + slack:
            over, first = over + 1, first or named(row, place)
    if count and over >= count / 2 and corners:
        raise SourceError(
            f"'{path}': {over:,} of {count:,} boxes leave their image, the first is {first}, and all fit when they are "
            'read as corners: bbox must be [x, y, width, height], not [x1, y1, x2, y2]'
        )
    if count and largest <= 1:
        raise SourceError(
            f"'{path}': no box has a number above 1: bbox must be in pixels, [x, y, width, height], not in fractions "
            'of the image'
        )


def clean_annotations(
    content: dict, listed: set, path: str, masks: bool | None, findings: Findings, filled: dict
) -> list[dict]:
    """Boxes, areas and masks of all annotations in place; the ones without a mask."""
    sizes = {row['id']: (row['height'], row['width']) for row in content['images']}
    kept, bare = [], []
    empty = 'boxes without area, outside of their image, or of no image of the file, left out'
    for place, row in enumerate(content['annotations'], 1):
        if row['image_id'] not in sizes:
            if row['image_id'] not in listed:  # else its image was left out, and counted
                findings.add(empty, row.get('id'), empty=True)
            continue
        height, width = sizes[row['image_id']]
        mute = row['bbox'] is None or row['bbox'][2] < 0 or row['bbox'][3] < 0
        usable = _clean_mask(row, place, height, width, path, findings) if mute or masks is not False else True
        if mute:
            _box_from_mask(row, place, height, width, path, findings)
        if not _cut(row, height, width, findings):
            findings.add(empty, row.get('id'), empty=True)
            continue
        kept.append(row)
        _fill(row, findings, filled)
        if not usable:
            bare.append(row)
    content['annotations'] = kept
    return bare


def _clean_mask(row: dict, place: int, height: int, width: int, path: str, findings: Findings) -> bool:
    """Whether the annotation has a mask, made usable in place."""
    given = row.get('segmentation')

    def note(text: str) -> None:
        findings.add(text, row.get('id'))

    try:
        row['segmentation'] = coco_masks.clean_mask(given, height, width, note)
    except coco_masks.OtherSize as error:
        raise SourceError(
            f"'{path}': the mask of {named(row, place)} has no single meaning: {error}. Write it for the decoded image"
        ) from error
    if row['segmentation'] is None:
        del row['segmentation']
        findings.changed |= bool(given)
        return False
    return True


def _box_from_mask(row: dict, place: int, height: int, width: int, path: str, findings: Findings) -> None:
    mask = row.get('segmentation')
    box = mask and coco_masks.box_of(mask, height, width)
    if not box:
        given = row['bbox'] if row['bbox'] is not None else 'missing, or not four finite numbers'
        raise SourceError(
            f"'{path}': the bbox of {named(row, place)} is {given}, and it has no mask to take it from: write [x, y, "
            'width, height] in pixels, or take the annotation out'
        )
    findings.add('boxes that say nothing, taken from the mask', row.get('id'))
    row['bbox'] = box


def _cut(row: dict, height: int, width: int, findings: Findings) -> bool:
    """Cut the box at the edge of its image in place; False for one that has no area there."""
    x, y, w, h = row['bbox']
    left, top, right, bottom = max(x, 0), max(y, 0), min(x + w, width), min(y + h, height)
    if w <= 0 or h <= 0 or right <= left or bottom <= top:
        return False
    if max(left - x, top - y, x + w - right, y + h - bottom) > coco_images.ROUNDING:
        row['bbox'] = [left, top, right - left, bottom - top]
        findings.add('boxes cut at the edge of their image', row.get('id'))
    return True


def _fill(row: dict, findings: Findings, filled: dict) -> None:
    """``iscrowd`` and ``area``; an area that is not positive would be passed over in training without a word."""
    if row.get('iscrowd') is None:
        row['iscrowd'] = 0
        filled['iscrowd'] = filled.get('iscrowd', 0) + 1
    given = row.get('area')
    area = number(given)
    if area is None or area <= 0:
        row['area'] = row['bbox'][2] * row['bbox'][3]
        filled['area'] = filled.get('area', 0) + 1
    elif area is not given:
        row['area'] = area
        findings.add('areas written as text, made numbers', row.get('id'))
