"""From the numbers in a file to 0..255: what is black and what is white is stated for a data set, not guessed for an
image.

8-bit files need nothing. 16-bit integers may hold 10, 12, 14 or 16 bits and floats anything, and no file says which; so
a data set of such files has a ``value_range``, found by the survey or given by the user, and one without stops.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from mim_mm.folders import DataError

ValueRange = Sequence[float] | Mapping[str, Sequence[float]] | None
DEPTHS = tuple(2**bits - 1 for bits in (8, 10, 12, 14, 16, 24, 32))


class ValueRangeError(DataError):
    """Values without a stated range, or outside of it. Not an ``UnreadableImage``: such a file is never passed over."""


def kind_of(dtype: np.dtype) -> str:
    """``float`` or ``integer``, the keys of a value range with two pairs."""
    return 'float' if np.dtype(dtype).kind == 'f' else 'integer'


def pair_of(value_range: ValueRange, kind: str) -> tuple[float, float] | None:
    """The (low, high) of that kind of numbers; None where none is stated.

    Args:
        value_range: (low, high) for all files that are not of 8 bits, or ``dict(integer=(low, high), float=...)``.

    Raises:
        ValueRangeError: not two rising finite numbers, or another key.
    """
    if isinstance(value_range, Mapping):
        if set(value_range) - {'integer', 'float'}:
            raise ValueRangeError(f'value_range={dict(value_range)} may have the keys integer and float')
        value_range = value_range.get(kind)
    if value_range is None:
        return None
    try:
        low, high = (float(value) for value in value_range)
    except (TypeError, ValueError):
        low = high = 0.0
    if not (np.isfinite([low, high]).all() and low < high):
        raise ValueRangeError(f'value_range={value_range} must be (low, high), the values of black and white')
    return low, high


def to_bytes(pixels: np.ndarray, value_range: ValueRange, name: str = '') -> np.ndarray:
    """Map the stated range to 0..255 and round.

    Args:
        pixels: numbers of any type and shape. uint8 are returned as they are.
        value_range: see :func:`pair_of`.
        name: the file's, for messages.

    Returns:
        uint8 of the same shape.

    Raises:
        ValueRangeError: no range is stated for such numbers, or values lie outside (floats: by over half a grey level).
    """
    if pixels.dtype == np.uint8:
        return pixels
    if pixels.dtype == bool:
        return pixels.astype(np.uint8) * np.uint8(255)
    kind, low, high = kind_of(pixels.dtype), float(pixels.min()), float(pixels.max())
    what = f'{repr(name) + ": " if name else ""}its values are {_words(pixels.dtype)} from {low:.6g} to {high:.6g}'
    stated = pair_of(value_range, kind)
    if stated is None:
        fits = ', '.join(f'{value:g}' for value in likely_range(kind, low, high))
        raise ValueRangeError(
            f'{what}, and nothing says which of them is black and which white. State it for the whole data set: '
            f'value_range = ({fits}) fits this file, in the config or by --cfg-options; or convert the files to 8 bits'
        )
    black, white = stated
    slack = 0.5 / 255 * (white - black) if kind == 'float' else 0
    if not (black - slack <= low and high <= white + slack):
        raise ValueRangeError(
            f'{what}, outside of value_range=({black:g}, {white:g}): mend the file, or state the range of all of them'
        )
    scaled = (pixels.astype(np.float64) - black) * (255 / (white - black))
    return np.clip(np.rint(scaled), 0, 255).astype(np.uint8)


def likely_range(kind: str, low: float, high: float) -> tuple[float, float]:
    """The range that a whole set with these extreme values was most likely written in.

    Integers from 0: the smallest usual depth (8, 10, 12, 14, 16 ... bits) that holds them. Floats: 0..1, -1..1 or
    0..255. Anything else: the extreme values themselves.
    """
    if kind == 'integer' and low >= 0:
        return 0, next((depth for depth in DEPTHS if high <= depth), high)
    if kind == 'float':
        for black, white in ((0.0, 1.0), (-1.0, 1.0), (0.0, 255.0)):
            slack = 0.5 / 255 * (white - black)
            if black - slack <= low and high <= white + slack:
                return black, white
    return low, high if high > low else low + 1


def _words(dtype: np.dtype) -> str:
    return f'{8 * np.dtype(dtype).itemsize}-bit {"floats" if kind_of(dtype) == "float" else "integers"}'
