"""Any file in COCO's format: checked, completed where training needs more than it says, and divided if need be."""

from __future__ import annotations

import json
import os
from collections import Counter
from dataclasses import dataclass

import numpy as np

from .image_sources import SourceError


@dataclass
class CocoFile:
    """A checked annotation file.

    Attributes:
        content: what to train from; ``categories`` in the order of their ids, which is the order of the labels.
        changed: it differs from the file on disk, so it has to be written.
        masks: every box has a mask.
        notes: what was found and done, in words.
    """

    content: dict
    changed: bool
    masks: bool
    notes: list[str]

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(category['name'] for category in self.content['categories'])


def read_coco(path: str, images: str) -> CocoFile:
    """Read and check an annotation file.

    mmdet numbers classes in the order of the file, so categories are sorted by id (ids may have gaps). Missing
    ``iscrowd``, ``area`` and image sizes are filled in; boxes without area, of an unknown image, and images that are
    not in the folder are left out, and counted in ``notes``.

    Args:
        path: the JSON file.
        images: the folder its ``file_name`` are relative to.

    Raises:
        SourceError: no COCO detection file, an unknown or doubled category, or none of its images is there.
    """
    content = _load(path)
    notes, before = [], json.dumps([content['categories'], len(content['images']), len(content['annotations'])])
    content['categories'] = sorted(content['categories'], key=lambda category: category['id'])
    names, ids = ([c[key] for c in content['categories']] for key in ('name', 'id'))
    for what, values in (('name', names), ('id', ids)):
        twice = [value for value, count in Counter(values).items() if count > 1]
        if twice:
            raise SourceError(f"'{path}': the category {what} {twice[0]!r} is there twice; each must be another")
    unknown = {a['category_id'] for a in content['annotations']} - set(ids)
    if unknown:
        raise SourceError(f"'{path}': boxes of category {sorted(unknown)[:5]}, which categories does not list")
    _drop_missing_images(content, path, images, notes)
    filled = _complete(content, images)
    bare = sum(not _has_mask(a) for a in content['annotations'])
    total = len(content['annotations'])
    if not total:
        raise SourceError(f"'{path}' has no usable box on the images in '{images}'")
    masks = bare == 0
    if not masks:
        notes.append(f'{bare:,} of {total:,} boxes have no mask: a box detector (Faster R-CNN) is trained, no mask AP')
    if filled:
        notes.append(f'filled in: {filled}')
    now = json.dumps([content['categories'], len(content['images']), len(content['annotations'])])
    return CocoFile(content, bool(filled) or now != before, masks, notes)


def _load(path: str) -> dict:
    try:
        with open(path, encoding='utf-8') as file:
            content = json.load(file)
    except (OSError, ValueError) as error:
        raise SourceError(f"'{path}' cannot be read as JSON: {error}") from error
    for key in ('images', 'annotations', 'categories'):
        rows = content.get(key) if isinstance(content, dict) else None
        if not isinstance(rows, list) or not rows:
            raise SourceError(
                f"'{path}' has no {key!r}: a COCO detection file lists images, annotations and categories"
            )
    wanted = dict(
        images=('id', 'file_name'), annotations=('image_id', 'category_id', 'bbox'), categories=('id', 'name')
    )
    for key, fields in wanted.items():
        for row in content[key]:
            lacking = [field for field in fields if not isinstance(row, dict) or field not in row]
            if lacking:
                raise SourceError(f"'{path}': an entry of {key!r} has no {lacking[0]!r}: {str(row)[:80]}")
    return content


def _drop_missing_images(content: dict, path: str, images: str, notes: list[str]) -> None:
    lost = [row for row in content['images'] if not os.path.isfile(os.path.join(images, row['file_name']))]
    if len(lost) == len(content['images']):
        example = os.path.join(images, lost[0]['file_name'])
        raise SourceError(f"'{path}': none of its {len(lost):,} images is there, e.g. '{example}'; give their folder")
    if lost:
        names = ', '.join(row['file_name'] for row in lost[:3])
        notes.append(f"{len(lost):,} of {len(content['images']):,} images are not in '{images}', left out: {names}")
    gone = {row['id'] for row in lost}
    content['images'] = [row for row in content['images'] if row['id'] not in gone]
    here = {row['id'] for row in content['images']}
    usable = [a for a in content['annotations'] if a['image_id'] in here and _has_area(a['bbox'])]
    dropped = sum(a['image_id'] not in gone for a in content['annotations']) - len(usable)
    if dropped:
        notes.append(f'{dropped:,} boxes without area, or of no image of the file, left out')
    content['annotations'] = usable


def _has_area(box) -> bool:
    return isinstance(box, list) and len(box) == 4 and box[2] > 0 and box[3] > 0


def _has_mask(annotation: dict) -> bool:
    """A polygon of three corners or more, or a run-length code."""
    shape = annotation.get('segmentation')
    return 'counts' in shape if isinstance(shape, dict) else bool(shape) and all(len(p) >= 6 for p in shape)


def _complete(content: dict, images: str) -> str:
    filled: Counter = Counter()
    used = {a.get('id') for a in content['annotations']}
    renumber = None in used or 0 in used or len(used) < len(content['annotations'])  # pycocotools takes id 0 for none
    for number, annotation in enumerate(content['annotations'], 1):
        if renumber:
            annotation['id'] = number
            filled['id'] += 1
        for key, value in (('iscrowd', 0), ('area', annotation['bbox'][2] * annotation['bbox'][3])):
            if annotation.get(key) is None:
                annotation[key] = value
                filled[key] += 1
    for row in content['images']:
        if not row.get('width') or not row.get('height'):
            from PIL import Image

            with Image.open(os.path.join(images, row['file_name'])) as image:
                row['width'], row['height'] = image.size
            filled['image size'] += 1
    return ', '.join(f'{key} {count:,}' for key, count in filled.items())


def same_classes(train: CocoFile, val: CocoFile) -> None:
    """Stop when two files number their classes differently.

    Raises:
        SourceError: naming the first difference.
    """
    pairs = [[(c['id'], c['name']) for c in part.content['categories']] for part in (train, val)]
    if pairs[0] != pairs[1]:
        first = next(iter(sorted(set(pairs[0]) ^ set(pairs[1]))))
        raise SourceError(f'both annotation files must list the same categories with the same ids; one lacks {first}')


def divide(coco: CocoFile, fraction: float = 0.2, seed: int = 0) -> tuple[CocoFile, CocoFile]:
    """Divide the images of a file by a seed: at least one image with boxes in each part.

    Returns:
        Training and validation part.

    Raises:
        SourceError: the fraction is not between 0 and 1, or fewer than two images have boxes.
    """
    if not 0 < fraction < 1:
        raise SourceError(f'--val-fraction {fraction} must be between 0 and 1')
    with_boxes = {a['image_id'] for a in coco.content['annotations']}
    ids = sorted(row['id'] for row in coco.content['images'] if row['id'] in with_boxes)
    empty = sorted(row['id'] for row in coco.content['images'] if row['id'] not in with_boxes)
    if len(ids) < 2:
        raise SourceError(f'{len(ids)} image with boxes cannot be divided; give --boxes-val, or more images')
    rng = np.random.default_rng(seed)
    held: set = set()
    for group, least in ((ids, 1), (empty, 0)):
        count = min(max(least, round(fraction * len(group))), max(0, len(group) - least))
        held |= {group[i] for i in rng.permutation(len(group))[:count]}
    parts = []
    for wanted in (False, True):
        content = dict(coco.content)
        content['images'] = [row for row in coco.content['images'] if (row['id'] in held) == wanted]
        content['annotations'] = [a for a in coco.content['annotations'] if (a['image_id'] in held) == wanted]
        parts.append(CocoFile(content, True, coco.masks, []))
    return parts[0], parts[1]
