"""Numbers, ids and flags of a COCO file as they are meant, and a count of what had to be mended.

The one rule of the four ``coco_*`` files: what can be meant in one way only is repaired and counted; what cannot stops
before training, with the id of the annotation or image.
"""

from __future__ import annotations

import math
from typing import Any

from mim_mm.data.image_sources import SourceError

LARGEST = 2**53  # of any number in the file: up to here floats hold whole numbers, and nothing overflows in float64
PLAIN = {int, float}


class Findings:
    """What was mended or left out: a text a kind, how often, and the first places.

    ``changed``: the content is no longer what the file says. ``left_out``: annotations without a visible box are gone,
    which mmdet passes over in training too.
    """

    def __init__(self) -> None:
        self._found: dict[tuple[str, str], list] = {}
        self.changed = self.left_out = False

    def add(self, text: str, where: Any = None, what: str = 'annotation', empty: bool = False) -> None:
        """Count one more of a kind.

        Args:
            where: id of the ``what``, or None.
            empty: an annotation without a visible box was left out.
        """
        entry = self._found.setdefault((text, what), [0])
        entry[0] += 1
        if where is not None and len(entry) < 4:
            entry.append(where)
        self.changed, self.left_out = self.changed or not empty, self.left_out or empty

    def lines(self) -> list[str]:
        return [f'{count:,} {text}{places(count, what, ids)}' for (text, what), (count, *ids) in self._found.items()]


def places(count: int, what: str, ids: list) -> str:
    """`` (annotation 3, 7, 9, ...)``."""
    return f' ({what} {", ".join(map(str, ids))}{", ..." if count > len(ids) else ""})' if ids else ''


def named(row: dict, number: int, what: str = 'annotation') -> str:
    """``annotation 7`` by its id, or by its place in the file where it has none."""
    identity = row.get('id')
    return f'{what} {identity}' if identity is not None else f'{what} number {number} (it has no id)'


def number(value: Any) -> int | float | None:
    """A finite number of bounded size, out of a string too; None for anything else."""
    if type(value) not in PLAIN:
        if not isinstance(value, str):
            return None
        try:
            value = float(value)
        except ValueError:
            return None
        value = int(value) if math.isfinite(value) and value == int(value) else value
    return value if -LARGEST <= value <= LARGEST else None  # NaN fails both


def numbers(values: Any) -> list | None:
    """A list of finite numbers, or None; the same object where nothing had to be done."""
    if not isinstance(values, (list, tuple)):
        return None
    if set(map(type, values)) <= PLAIN and _bounded(values):
        return values if isinstance(values, list) else list(values)
    found = [number(value) for value in values]
    return None if None in found else found


def _bounded(values) -> bool:
    """Of plain numbers; a sum is NaN as soon as one of them is, which min and max are not."""
    return not values or (-LARGEST <= min(values) and max(values) <= LARGEST and not math.isnan(sum(values)))


def flag(value: Any) -> int | None:
    """0 or 1 out of 0, 1, false, true, '0', '1'; None for anything else. bool('0') would be True."""
    if isinstance(value, bool):
        return int(value)
    value = number(value)
    return int(value) if value in (0, 1) else None


def label(value: Any) -> int | str | None:
    """An id: a whole number, also out of '12' and 12.0, or any other text; None for what is neither."""
    if type(value) is int:
        return value if abs(value) <= LARGEST else str(value)
    found = number(value)
    if found is not None:
        return int(found) if found == int(found) else str(value)
    return value if isinstance(value, str) and value.strip() else None


def clean_ids(rows: list[dict], what: str, path: str, findings: Findings) -> dict:
    """Give each row an ``id`` that is a whole number; ids are labels, so text is replaced by numbers not in use.

    Returns:
        what :func:`label` makes of an id in the file -> the id now.

    Raises:
        SourceError: an id that is neither a number nor text.
    """
    found = []
    for place, row in enumerate(rows, 1):
        found.append(label(row['id']))
        if found[-1] is None:
            raise SourceError(f"'{path}': entry {place} of {what} has the id {row['id']!r}; give it a whole number")
    now = {value: value for value in found if isinstance(value, int)}
    free = max(now, default=0) + 1
    for value in found:
        if value not in now:
            now[value], free = free, free + 1
    for row, value in zip(rows, found):
        if type(row['id']) is not int or row['id'] != now[value]:
            findings.add(f'ids of {what} made whole numbers', repr(row['id']), 'id')
            row['id'] = now[value]
    return now


def clean_categories(content: dict, path: str, findings: Findings) -> dict:
    """Ids as numbers, names as text, rows listed twice once; returns the map of :func:`clean_ids`.

    Raises:
        SourceError: one id with two names, one name with two ids, or no name.
    """
    rows = content['categories']
    now = clean_ids(rows, 'categories', path, findings)
    names: dict = {}
    kept = []
    for row in rows:
        if not isinstance(row['name'], str):
            if row['name'] is None or isinstance(row['name'], (list, dict)):
                raise SourceError(f"'{path}': category {row['id']} has the name {row['name']!r}; give it one")
            findings.add('category names made text', row['id'], 'category')
            row['name'] = str(row['name'])
        if names.get(row['id']) == row['name']:
            findings.add('categories listed twice, taken once', row['id'], 'category')
            continue
        for key, taken in (('id', row['id'] in names), ('name', row['name'] in names.values())):
            if taken:
                raise SourceError(f"'{path}': the category {key} {row[key]!r} is there twice; each must be another")
        names[row['id']] = row['name']
        kept.append(row)
    content['categories'] = kept
    return now


def clean_references(content: dict, images: dict, categories: dict, path: str, findings: Findings) -> None:
    """``image_id``, ``category_id``, ``iscrowd`` and ``ignore`` of all annotations; of unknown images None.

    Args:
        images, categories: maps of :func:`clean_ids`.

    Raises:
        SourceError: an unknown category, or a flag that is none.
    """
    unknown: dict = {}
    for place, row in enumerate(content['annotations'], 1):
        for key, known in (('image_id', images), ('category_id', categories)):
            value = row[key]
            if type(value) is int and known.get(value) == value:
                continue
            now = known.get(label(value))
            if now is None and key == 'category_id':
                unknown.setdefault(repr(value), named(row, place))
            elif type(value) is int:
                findings.changed = True  # its image, listed twice, has been joined with the other
            elif now is not None:
                findings.add(f'{key} of annotations made whole numbers', row.get('id'))
            row[key] = now
        for key in ('iscrowd', 'ignore'):
            value = row.get(key)
            if value is None or (type(value) is int and value in (0, 1)):
                continue
            row[key] = flag(value)
            if row[key] is None:
                raise SourceError(f"'{path}': {key} of {named(row, place)} is {value!r}; it must be 0 or 1")
            if type(value) is not bool:  # JSON's false and true are read as 0 and 1 by everybody
                findings.add(f'{key} made 0 or 1', row.get('id'))
    if unknown:
        first = next(iter(unknown.values()))
        shown = ', '.join(list(unknown)[:5])
        raise SourceError(f"'{path}': boxes of category [{shown}], which categories does not list; the first: {first}")


def drop_copies(content: dict, joined: set, findings: Findings) -> None:
    """Leave out annotations that are there twice: under one id with equal content, or on an image listed twice.

    Equal annotations under two ids of one image stay, as they are in COCO itself. One id with two contents is no copy.

    Args:
        joined: ids of the images that were listed under several ids.
    """
    by_id: dict = {}
    on_joined: list = []
    kept = []
    for row in content['annotations']:
        identity, body = row.get('id'), {key: value for key, value in row.items() if key != 'id'}
        if (
            not isinstance(identity, (list, dict))
            and identity is not None
            and by_id.setdefault(identity, row) is not row
        ):
            copied = by_id[identity] == row
        else:
            copied = row['image_id'] in joined and body in on_joined
        if copied:
            findings.add('annotations that are there twice, taken once', identity)
            continue
        if row['image_id'] in joined:
            on_joined.append(body)
        kept.append(row)
    content['annotations'] = kept


def number_annotations(rows: list[dict], filled: dict) -> None:
    """Ids 1, 2, ... unless they are different whole numbers other than 0, which pycocotools takes for no match."""
    found = [label(row.get('id')) for row in rows]
    if all(type(i) is int and i for i in found) and len(set(found)) == len(found):
        for row, value in zip(rows, found):
            if row['id'] is not value and (type(row['id']) is not int or row['id'] != value):
                row['id'] = value
                filled['id'] = filled.get('id', 0) + 1
        return
    for place, row in enumerate(rows, 1):
        row['id'] = place
        filled['id'] = filled.get('id', 0) + 1
