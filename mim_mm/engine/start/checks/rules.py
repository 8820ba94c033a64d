"""Rules for single values: numbers in a range, one of a few words. A rule gives the complaint, or None."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mim_mm.engine.start.checks.words import nearest, shown

Rule = Callable[[Any], 'str | None']


def is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def as_number(value: Any) -> float | None:
    """The number that a text spells, None if it spells none."""
    try:
        return float(value) if isinstance(value, str) else None
    except ValueError:
        return None


def number(words: str, test: Callable[[float], bool], whole: bool = False) -> Rule:
    """A number that passes ``test``; in a list, each of them. None and what is no number or text is left alone."""

    def rule(value: Any) -> str | None:
        if isinstance(value, (list, tuple)):
            return next((said for said in map(rule, value) if said), None)
        if isinstance(value, str):
            text = value if as_number(value) is not None else words
            return (
                f'it is text where a number is wanted: write {text} without quotes'
                if text == value
                else (f'it is text, and must be {words}')
            )
        if isinstance(value, bool):
            return f'it is a yes or no, and must be {words}'
        if not is_number(value):
            return None
        if math.isnan(value) or not test(value) or (whole and value != int(value)):
            return f'it must be {words}'
        return None

    return rule


def one_of(*names: Any) -> Rule:
    """One of these values; None is left alone."""

    def rule(value: Any) -> str | None:
        if value is None or not isinstance(value, (str, int)) or value in names:
            return None
        near = nearest(str(value), [name for name in names if isinstance(name, str)], 0.4)
        return (f"did you mean '{near}'? " if near else '') + f'It must be one of {", ".join(map(str, names))}'

    return rule


def yes_or_no(value: Any) -> str | None:
    if isinstance(value, str):
        return 'it is text, and must be True or False, without quotes'
    return None


def rising(words: str, low: float, high: float) -> Rule:
    """Two numbers (smallest, largest) within low..high."""

    def rule(value: Any) -> str | None:
        if not isinstance(value, Sequence) or isinstance(value, str) or not all(map(is_number, value)):
            return None
        if len(value) != 2 or not low < value[0] <= value[1] <= high:
            return f'it must be {words}'
        return None

    return rule


def betas(value: Any) -> str | None:
    """Those of Adam: two parts below 1, that of the gradient first, which forgets faster."""
    if not isinstance(value, (list, tuple)):
        return 'it must be two numbers, betas=(0.9, 0.95)'
    said = BELOW_ONE(value)
    if said or not all(map(is_number, value)):
        return said
    if len(value) == 2 and value[0] > value[1]:
        return f'the first is larger than the second: are they swapped? betas=({value[1]}, {value[0]})'
    return None


def milestones(value: Any) -> str | None:
    if not isinstance(value, (list, tuple)):
        return 'it must be a list, milestones=[60, 80]'
    said = COUNT(value)
    if said or not all(map(is_number, value)):
        return said
    return None if list(value) == sorted(value) else 'it must rise from step to step'


def spread(value: Any) -> str | None:
    """Standard deviations of channels, by which pixels are divided."""
    return POSITIVE(value)


def momentum(value: Any) -> str | None:
    """Of a teacher: a part of 1; tables and cosines have values and epochs, which the teacher checks itself."""
    return PART(value) if is_number(value) else None


def positive_or_never(value: Any) -> str | None:
    """An interval of mmengine: -1 says never, 0 has no meaning and is taken for never in silence."""
    if value == -1 and not isinstance(value, bool):
        return None
    return _WHOLE_OR_NEVER(value)


WHOLE = number('a whole number from 1 up', lambda x: x >= 1, whole=True)
COUNT = number('a whole number from 0 up', lambda x: x >= 0, whole=True)
POSITIVE = number('above 0', lambda x: x > 0)
NOT_NEGATIVE = number('0 or above', lambda x: x >= 0)
PART = number('within 0 and 1', lambda x: 0 <= x <= 1)
POSITIVE_PART = number('above 0 and at most 1', lambda x: 0 < x <= 1)
BELOW_ONE = number('from 0 to below 1', lambda x: 0 <= x < 1)
BETWEEN = number('between 0 and 1, neither of them', lambda x: 0 < x < 1)
_WHOLE_OR_NEVER = number('a whole number from 1 up, or -1 for never', lambda x: x >= 1, whole=True)


def complaint(path: str, value: Any, rule: Rule) -> str | None:
    """``path=value: what is wrong``, or None."""
    said = None if value is None or isinstance(value, Mapping) else rule(value)
    return f'{path}={shown(value)}: {said}' if said else None
