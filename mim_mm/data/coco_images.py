"""The images that a COCO file lists: which are there, and whether they are decoded to the size that it says."""

from __future__ import annotations

import os
import unicodedata
import warnings
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from mim_mm import files
from mim_mm.data.coco_rows import Findings, number
from mim_mm.data.decode import reason
from mim_mm.data.image_header import check_pixels, pillow_image
from mim_mm.data.image_sources import SourceError

ALL_HEADERS = 5000  # images of which every header is read; of more, SAMPLE drawn by seed 0, and all if one is wrong
SAMPLE = 1000
ROUNDING = 1.0  # px that a box may stand over: labelling tools round, and COCO's own boxes do by a hundredth
ORIENTATION = 0x0112  # EXIF; 5 to 8 swap the sides


@dataclass(frozen=True)
class Size:
    """As the decoder gives an image, in pixels; ``turned``: by its EXIF orientation."""

    width: int
    height: int
    turned: bool = False


def decoded_size(path: str, turn: bool = True) -> Size:
    """Size of an image as mmcv (OpenCV) decodes it, from its header.

    Args:
        turn: the orientation that a camera noted is applied, which mmcv does unless ``color_type`` says otherwise.

    Raises:
        OSError, or anything else that Pillow raises for a file that is no image.
    """
    Image = pillow_image()
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        with files.open_regular(path) as file, Image.open(file) as image:
            width, height = image.size
            check_pixels(width, height)
            # A PNG has to be decoded for a chunk behind its pixels, which OpenCV does not look at either.
            known = image.getexif() if image.format != 'PNG' or 'exif' in image.info else {}
            orientation, jpeg = known.get(ORIENTATION, 1), image.format in ('JPEG', 'MPO')
    if not turn or orientation not in range(2, 9):
        return Size(width, height)
    if not jpeg:  # whether OpenCV turns these depends on its version
        import mmcv

        pixels = mmcv.imread(path)
        return Size(pixels.shape[1], pixels.shape[0], (pixels.shape[1], pixels.shape[0]) != (width, height))
    return Size(height, width, True) if orientation >= 5 else Size(width, height, True)


def clean_rows(content: dict, now: dict, path: str, findings: Findings) -> dict:
    """Rows of ``images``: file names as this system writes them, one row an image.

    Args:
        now: map of :func:`coco_rows.clean_ids` of the images.

    Returns:
        ``now`` with the ids of images listed twice on the row that stays.

    Raises:
        SourceError: one id of two files, or a file name that is no text.
    """
    by_id: dict = {}
    by_file: dict = {}
    moved: dict = {}
    for row in content['images']:
        name = row['file_name']
        if not isinstance(name, str) or not name:
            raise SourceError(f"'{path}': image {row['id']} has the file_name {name!r}; it must be text")
        file = os.path.normpath(name)
        if row['id'] in by_id:
            other = by_id[row['id']]
            if os.path.normpath(other['file_name']) != file:
                raise SourceError(
                    f"'{path}': image id {row['id']} is that of '{other['file_name']}' and of '{name}', so its "
                    'annotations belong to either; give each image an id of its own'
                )
            findings.add('images listed twice, taken once', row['id'], 'image')
        elif file in by_file:
            moved[row['id']] = by_file[file]['id']
            findings.add('images listed under two ids, joined under the first', row['id'], 'image')
        else:
            by_id[row['id']] = by_file[file] = row
    content['images'] = list(by_id.values())
    return {key: moved.get(value, value) for key, value in now.items()}


def drop_absent(content: dict, path: str, images: str, complete: bool, findings: Findings) -> list[str]:
    """Leave out images that are not there; a name in other Unicode form, or with ``\\``, is looked up.

    Args:
        complete: stop instead, because figures of a part of the set are not figures of the set.

    Returns:
        A note, or none.

    Raises:
        SourceError: none of the images is there, or with ``complete`` one is not.
    """
    rows = content['images']
    lost = [row for row, there in zip(rows, _there(images, rows)) if not there]
    listings: dict[str, dict] = {}
    for row in list(lost):
        found = _other_writing(images, row['file_name'], listings)
        if found:
            findings.add('file names written in another way on disk, mended', repr(row['file_name']), 'name')
            row['file_name'] = found
            lost.remove(row)
    if not lost:
        return []
    example = os.path.join(images, lost[0]['file_name'])
    if len(lost) == len(rows):
        raise SourceError(f"'{path}': none of its {len(lost):,} images is there, e.g. '{example}'; give their folder")
    if complete:
        raise SourceError(
            f"'{path}': {len(lost):,} of its {len(rows):,} images are not there, the first is image {lost[0]['id']}, "
            f"'{example}'; a part of the set gives other figures: complete the folder, or take the rows out of the file"
        )
    gone = {row['id'] for row in lost}
    content['images'] = [row for row in rows if row['id'] not in gone]
    names = ', '.join(row['file_name'] for row in lost[:3])
    findings.changed = True
    return [f"{len(lost):,} of {len(rows):,} images are not in '{images}', left out: {names}"]


def _there(folder: str, rows: list[dict]) -> Iterable[bool]:
    return _in_threads(lambda row: os.path.isfile(os.path.join(folder, row['file_name'])), rows)


def _in_threads(function: Callable, rows: list) -> list:
    """Most of the time is waiting for a disk."""
    with ThreadPoolExecutor(min(64, 8 * (os.cpu_count() or 1))) as pool:
        return list(pool.map(function, rows, chunksize=64))


def _other_writing(folder: str, name: str, listings: dict[str, dict]) -> str | None:
    place, base = os.path.split(name.replace('\\', '/'))
    if place not in listings:
        try:
            found = os.listdir(os.path.join(folder, place))
        except OSError:
            found = []
        listings[place] = {unicodedata.normalize('NFC', file): file for file in found}
    found = listings[place].get(unicodedata.normalize('NFC', base))
    found = found and os.path.join(place, found)
    return found if found and os.path.isfile(os.path.join(folder, found)) else None


def check_sizes(
    content: dict, path: str, images: str, turn: bool, complete: bool, findings: Findings, filled: dict
) -> str:
    """Compare ``width`` and ``height`` with the files; right afterwards for every image that was looked at.

    A file that says another size than the decoder gives either has a wrong number, or labels of another picture (one
    that was not turned as its EXIF says, or that was resized since). The boxes tell which: those that fit into one of
    the two only. Where none does, or they contradict each other, there is no single meaning.

    Args:
        turn, complete: see :func:`decoded_size` and :func:`drop_absent`; an image whose header cannot be read counts as
            absent.
        filled: counts what the file did not say.

    Returns:
        What was compared, in words.

    Raises:
        SourceError: with the id of an image whose labels are, or may be, of a picture of another size.
    """
    rows = content['images']
    stated = [_stated(row, findings) for row in rows]
    few = len(rows) <= ALL_HEADERS
    chosen = set(range(len(rows)))
    if not few:
        chosen = set(np.random.default_rng(0).permutation(len(rows))[:SAMPLE].tolist())
        chosen |= {i for i, size in enumerate(stated) if size is None}
    found = _sizes(rows, sorted(chosen), images, turn)
    if not few and any(_differs(stated[i], size) for i, size in found.items()):
        few = True
        found.update(_sizes(rows, sorted(set(range(len(rows))) - chosen), images, turn))
    bad = [i for i, size in found.items() if isinstance(size, str)]
    if bad and complete:
        row = rows[bad[0]]
        raise SourceError(f"'{path}': image {row['id']}, '{row['file_name']}', cannot be read: {found[bad[0]]}")
    wrong = [i for i, size in found.items() if stated[i] and _differs(stated[i], size) and i not in bad]
    _one_meaning([(rows[i], stated[i], found[i]) for i in wrong], content['annotations'], path)
    for i, size in found.items():
        if i not in bad and (stated[i] is None or i in set(wrong)):
            rows[i]['width'], rows[i]['height'] = size.width, size.height
            if stated[i] is None:
                filled['image size'] = filled.get('image size', 0) + 1
            else:
                findings.add(
                    "image sizes set to the decoder's, into which alone the labels fit", rows[i]['id'], 'image'
                )
    for i in bad:
        findings.add('images that cannot be read, left out', f"'{rows[i]['file_name']}': {found[i]}", 'image')
    content['images'] = [row for i, row in enumerate(rows) if i not in set(bad)]
    turned = sum(isinstance(size, Size) and size.turned for size in found.values())
    how = f'all {len(rows):,} images' if few else f'{SAMPLE:,} of {len(rows):,} images, drawn by seed 0'
    more = f'; {turned:,} are turned by their EXIF orientation: labels must be of the turned picture' if turned else ''
    return f'sizes compared with the headers of {how}{more}'


def _stated(row: dict, findings: Findings) -> tuple[int, int] | None:
    """(width, height) of the file; None where it says none."""
    values: list[Any] = [number(row.get(key)) for key in ('width', 'height')]
    if None in values or min(values) < 1 or any(v != int(v) for v in values):
        return None
    if any(type(row[key]) is not int for key in ('width', 'height')):
        row['width'], row['height'] = map(int, values)
        findings.add('image sizes written as text or fractions, made whole numbers', row['id'], 'image')
    return row['width'], row['height']


def _differs(stated: tuple[int, int] | None, size: Size | str) -> bool:
    return isinstance(size, Size) and stated is not None and stated != (size.width, size.height)


def _sizes(rows: list[dict], chosen: list[int], images: str, turn: bool) -> dict[int, Size | str]:
    """Of each chosen row its size, or why it cannot be read."""

    def look(index: int) -> Size | str:
        try:
            return decoded_size(os.path.join(images, rows[index]['file_name']), turn)
        except Exception as error:  # Pillow's plugins raise anything from SyntaxError to struct.error
            return reason(error)

    return dict(zip(chosen, _in_threads(look, chosen)))


def _one_meaning(wrong: list[tuple[dict, tuple[int, int], Size]], annotations: list[dict], path: str) -> None:
    """Whether the labels of the whole set, which has one maker, are of the decoded pictures."""
    if not wrong:
        return
    extents = {row['id']: [0.0, 0.0] for row, *_ in wrong}
    labelled, codes = set(), {}
    for annotation in annotations:
        reach = extents.get(annotation['image_id'])
        if reach is None:
            continue
        labelled.add(annotation['image_id'])
        box = annotation['bbox']
        if box is not None:
            reach[0], reach[1] = max(reach[0], box[0] + box[2]), max(reach[1], box[1] + box[3])
        code = annotation.get('segmentation')
        if isinstance(code, dict) and isinstance(code.get('size'), list) and len(code['size']) == 2:
            codes.setdefault(annotation['image_id'], []).append([number(v) for v in code['size']])
    decoded = None
    for row, stated, size in wrong:
        fits = []
        for width, height in (stated, (size.width, size.height)):
            inside = extents[row['id']][0] <= width + ROUNDING and extents[row['id']][1] <= height + ROUNDING
            fits.append(inside and all(code == [height, width] for code in codes.get(row['id'], ())))
        if row['id'] in labelled and not fits[1]:
            _stop(path, row, stated, size, 'whose labels do not fit into it')
        decoded = decoded or (row['id'] in labelled and not fits[0])
    ambiguous = [entry for entry in wrong if entry[0]['id'] in labelled]
    if ambiguous and not decoded:
        _stop(path, *ambiguous[0], 'and its labels fit into both, so they may be of either')


def _stop(path: str, row: dict, stated: tuple[int, int], size: Size, why: str) -> None:
    how = 'turned as its EXIF orientation says, ' if size.turned else ''
    fix = 'label the turned picture, or write the files anew without EXIF' if size.turned else 'take the labelled files'
    raise SourceError(
        f"'{path}': image {row['id']}, '{row['file_name']}', is said to be {stated[0]} x {stated[1]} px, and is "
        f'{how}decoded to {size.width} x {size.height}, {why}. Correct width and height if the labels are of the '
        f'decoded picture; else {fix}'
    )
