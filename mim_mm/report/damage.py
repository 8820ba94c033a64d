"""What is wrong with the files of a chain, field by field: nothing of a damaged file counts as a result."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

__all__ = ['CHAIN', 'RUN', 'RUN_MORE', 'faults', 'finite', 'inside', 'is_series', 'no_comparison']

SHOWN = 60  # letters of a wrong value


def finite(value: Any) -> bool:
    """Whether it is a number that a page can show; a bool is none, nor is a whole number beyond the floats."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _whole(value: Any) -> bool:
    return finite(value) and isinstance(value, int)


def _object(value: Any) -> bool:
    return isinstance(value, dict)


def _list(value: Any) -> bool:
    return isinstance(value, list)


def _objects(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, dict) for item in value)


WORDS = {
    _text: 'text', _whole: 'a whole number', finite: 'a finite number', _object: 'an object', _list: 'a list',
    _objects: 'a list of objects',
}  # fmt: skip

# What the page reads, as path -> test; a '*' is every entry of an object. null is everywhere "not known". Of a run that
# is wrong in RUN nothing counts; what is wrong in RUN_MORE is passed over, and said.
RUN: dict[str, Callable] = {
    'stage': _text, 'kind': _text, 'arm': _text, 'seed': _whole, 'status': _text, 'config': _object,
    'config.path': _text, 'config.sha256': _text, 'config.options': _object, 'parent': _object, 'git': _object,
    'progress': _object, 'metrics': _object, 'artifacts': _object,
}  # fmt: skip
RUN_MORE: dict[str, Callable] = {
    'scalars': _text, 'gpus': _whole, 'checkpoint': _text, 'wall_s': finite, 'artifacts.*': _text, 'data': _object,
    'data.*.files': _whole, 'code': _object, 'artifact_errors': _object,
}  # fmt: skip
CHAIN: dict[str, Callable] = {
    'name': _text, 'arms': _list, 'orderings': _objects, 'controls': _list, 'series': _objects,
}  # fmt: skip
COMPARE: dict[str, Callable] = {
    'arms': _object, 'arms.*': _object, 'arms.*.stage': _text, 'arms.*.path': _text, 'arms.*.source': _text,
    'arms.*.seeds': _list, 'arms.*.pretraining': _object, 'arms.*.encoder': _object, 'recipes': _object,
    'recipes.*': _object, 'recipes.*.kind': _text, 'recipes.*.seeds': _list, 'recipes.*.options': _object,
    'recipes.*.stages': _object, 'recipes.*.stages.*': _text, 'recipes.*.facts': _object, 'allowed': _objects,
}  # fmt: skip


def faults(content: Mapping, wanted: Mapping[str, Callable]) -> list[str]:
    """What is of another type than it must be, in words: ``arm must be text or null, it is 1.5``."""
    found = []
    for path, test in wanted.items():
        for where, value in _at(content, path.split('.')):
            if value is not None and not test(value):
                shown = repr(value)
                shown = shown if len(shown) <= SHOWN else f'{shown[:SHOWN]}...'
                found.append(f'{where} must be {WORDS[test]} or null, it is {shown}')
    return found


def _at(content: Any, words: list[str], before: str = ''):
    if not words:
        yield before, content
    elif isinstance(content, dict):
        for key in content if words[0] == '*' else [words[0]] if words[0] in content else []:
            yield from _at(content[key], words[1:], f'{before}.{key}' if before else str(key))


def is_series(item: Any) -> bool:
    """Whether it says which arms a picture shows along a value: see :mod:`mim_mm.report.figures_orderings`."""
    if not isinstance(item, dict) or not all(_text(item.get(key)) for key in ('title', 'x')):
        return False
    lines = item.get('lines')
    return isinstance(lines, dict) and all(
        isinstance(line, dict) and all(_text(arm) and _number(x) for x, arm in line.items()) for line in lines.values()
    )


def _number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def no_comparison(content: Any) -> str | None:
    """Why a compare.json is none; None for a sound one."""
    if not isinstance(content, dict):
        return f'it holds a {type(content).__name__}, no object'
    found = faults(content, COMPARE)
    return '; '.join(found) or None


def inside(path: Path, *folders: Path) -> bool:
    """Whether a file lies in one of these folders when every link is followed."""
    real = path.resolve()
    return any(real.is_relative_to(folder.resolve()) for folder in folders)
