"""Any file in COCO's format: read once, mended where there is one meaning, and divided if need be.

Training, mmdet's data set and both evaluators read what comes out of here. :func:`read_coco` is the one reader; its
rules for numbers and ids are in ``coco_rows``, for images in ``coco_images``, for boxes in ``coco_boxes``, for masks in
``coco_masks``.
"""

from __future__ import annotations

import gc
import json
import locale
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mim_mm import files
from mim_mm.data import coco_boxes, coco_images
from mim_mm.data.coco_rows import (
    Findings,
    clean_categories,
    clean_ids,
    clean_references,
    drop_copies,
    number_annotations,
    places,
)
from mim_mm.data.image_sources import SourceError

# A fraction of boxes: below it a mask head would learn less than is lost of the boxes that it cannot learn from.
ENOUGH_MASKS = 0.5


@dataclass
class CocoFile:
    """A checked annotation file.

    Attributes:
        content: what to train from; ``categories`` in the order of the labels.
        changed: it differs from what pycocotools would read from the file on disk, so it has to be written.
        masks: every box has a mask, or marks a region that is not counted.
        notes: what was found and done, in words.
        checked: how sizes were compared, in words.
        trains_alike: mmdet trains alike on the file as it is, since it passes over boxes that cannot be seen.
    """

    content: dict
    changed: bool
    masks: bool
    notes: list[str]
    checked: str = ''
    trains_alike: bool = False

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(category['name'] for category in self.content['categories'])


def read_coco(
    path: str,
    images: str,
    masks: bool | None = None,
    classes: Sequence[str] | None = None,
    complete: bool = False,
    turn: bool = True,
) -> CocoFile:
    """Read, check and mend an annotation file.

    mmdet numbers classes in the order of the file, so categories are sorted (ids may have gaps). Missing ``iscrowd``,
    ``area``, ``id``, box (from the mask) and image sizes are filled in; numbers written as text become numbers; boxes
    are cut at the edge of their image; boxes without area, outside of their image or of an unknown one, and images that
    are not in the folder are left out. Parts of masks that are unusable are dropped; a box that is left without a mask
    in a file that has them becomes a region that is neither learnt nor counted (``iscrowd``). ``notes`` count it all.

    Args:
        path: the JSON file, UTF-8 (a BOM is fine) or UTF-16.
        images: the folder its ``file_name`` are relative to.
        masks: True: masks are wanted. False: they are not looked at. None: wanted if half of the boxes have one.
        classes: names in the order of the labels; those that the file lacks are added, without annotations. (): in the
            order of the file. None: in the order of their ids.
        complete: stop for an image that is not there or cannot be read, instead of leaving it out.
        turn: the decoder applies the EXIF orientation.

    Raises:
        SourceError: what has no single meaning, with the id of the annotation or image; no COCO detection file; none of
            its images is there; ``masks`` and fewer than half of the boxes have one.
    """
    content, plain = _load(path)
    findings, filled = Findings(), {}
    categories = clean_categories(content, path, findings)
    findings.changed |= _sort_categories(content, classes, findings)
    given = clean_ids(content['images'], 'images', path, findings)
    ids = coco_images.clean_rows(content, given, path, findings)
    clean_references(content, ids, categories, path, findings)
    drop_copies(content, {now for value, now in ids.items() if now != given[value]}, findings)
    notes = coco_images.drop_absent(content, path, images, complete, findings)
    for annotation in content['annotations']:
        annotation['bbox'] = coco_boxes.four_numbers(annotation, findings)
    checked = coco_images.check_sizes(content, path, images, turn, complete, findings, filled)
    coco_boxes.check_format(content, path)
    bare = coco_boxes.clean_annotations(content, set(ids.values()), path, masks, findings, filled)
    total = len(content['annotations'])
    if not total:
        raise SourceError(f"'{path}' has no usable box on the images in '{images}'")
    number_annotations(content['annotations'], filled)
    notes += findings.lines()
    enough = masks is not False and len(bare) <= (1 - ENOUGH_MASKS) * total
    if bare and enough:
        for annotation in bare:
            _as_region(annotation)
        notes.append(_bare_note(bare, total) + 'kept as regions that are neither learnt nor counted (iscrowd)')
        findings.changed = True
    elif bare and masks:
        raise SourceError(
            f"'{path}': {_bare_note(bare, total)}too many to train masks: take a recipe without a mask head"
        )
    elif bare and masks is None:
        notes.append(
            f'{len(bare):,} of {total:,} boxes have no mask: a box detector (Faster R-CNN) is trained, no mask AP'
        )
    if filled:
        notes.append('filled in: ' + ', '.join(f'{key} {count:,}' for key, count in filled.items()))
    changed = bool(filled) or findings.changed or not plain
    return CocoFile(content, changed or findings.left_out, enough, notes, checked, not changed)


def _load(path: str) -> tuple[dict, bool]:
    """The content, and whether pycocotools, which opens a file in the encoding of the system, reads the same."""
    try:
        data = files.read_regular(path)
        content = _parsed(data)
    except (OSError, ValueError, RecursionError) as error:
        raise SourceError(f"'{path}' cannot be read as JSON: {error}") from error
    for key in ('images', 'annotations', 'categories'):
        rows = content.get(key) if isinstance(content, dict) else None
        if not isinstance(rows, list) or not rows:
            raise SourceError(
                f"'{path}' has no {key!r}: a COCO detection file lists images, annotations and categories"
            )
    wanted = dict(images=('id', 'file_name'), annotations=('image_id', 'category_id'), categories=('id', 'name'))
    for key, fields in wanted.items():
        for row in content[key]:
            lacking = [field for field in fields if not isinstance(row, dict) or field not in row]
            if lacking:
                raise SourceError(f"'{path}': an entry of {key!r} has no {lacking[0]!r}: {str(row)[:80]}")
    utf8 = locale.getpreferredencoding(False).lower().replace('-', '') == 'utf8'
    return content, b'\0' not in data and (data.isascii() or (utf8 and data[:1] in b'{ \t\r\n'))


def _parsed(data: bytes) -> Any:
    """JSON in UTF-8, also with a BOM, UTF-16 or UTF-32. The garbage collector would double the time of a large file."""
    on = gc.isenabled()
    gc.disable()
    try:
        return json.loads(data)
    finally:
        if on:
            gc.enable()


def _sort_categories(content: dict, classes: Sequence[str] | None, findings: Findings) -> bool:
    """Categories in the order of the labels; whether that changed anything."""
    before = list(content['categories'])
    if classes == ():
        return False
    if classes is None:
        content['categories'].sort(key=lambda row: row['id'])
        return before != content['categories']
    known = {row['name']: row for row in before}
    free = max(row['id'] for row in before) + 1
    for name in classes:
        if name not in known:
            known[name], free = dict(id=free, name=name), free + 1
            findings.add(
                'classes that the file does not list, added so that the others keep their numbers', name, 'class'
            )
    ordered = [known[name] for name in classes]
    content['categories'] = ordered + [row for row in before if row['name'] not in set(classes)]
    # Others may stand between: mmdet passes over them.
    taken = [row for row in before if row['name'] in set(classes)]
    if taken == ordered:
        content['categories'] = before
        return False
    return True


def _as_region(annotation: dict) -> None:
    x, y, w, h = annotation['bbox']
    annotation.update(iscrowd=1, segmentation=[[x, y, x + w, y, x + w, y + h, x, y + h]])


def _bare_note(bare: list[dict], total: int) -> str:
    first = places(len(bare), 'annotation', [row['id'] for row in bare[:3]])
    return f'{len(bare):,} of {total:,} boxes have no usable mask{first}, '


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
