"""What one image says of itself: format, size, channels, depth, or why it cannot be read.

By default only the header is read, by Pillow. A JPEG or PNG that lacks the mark at its end is decoded fully, because
that is how a file that was cut off looks; so is a file of more than 8 bits, because only its largest value, and those
of the rest of its set, say what counts as white.
"""

from __future__ import annotations

import io
import os
from dataclasses import dataclass, replace

import numpy as np

from mim_mm import files
from mim_mm.data.decode import (
    PLAIN,
    bits_of,
    decode,
    orientation_of,
    reason,
    stored,
)
from mim_mm.data.image_header import POSTSCRIPT, TIFFS, UnreadableImage, check_pixels, npy_header, pillow_image
from mim_mm.data.image_sources import Place
from mim_mm.data.pixel_values import ValueRange, kind_of, likely_range, pair_of, to_bytes
from mim_mm.folders import DataError

HEAD = 1 << 16  # bytes read for a header; where that is not enough the whole file is
TAIL = 64
END_MARKS = dict(JPEG=b'\xff\xd9', PNG=b'IEND')


@dataclass(frozen=True)
class Look:
    """What one image says of itself, or why it cannot be read. Width and height in pixels, upright.

    ``mode`` is Pillow's (RGB, P, CMYK, I;16 ...), ``bits`` those of one number; ``low`` and ``high`` the extreme values
    of a file of more than 8 bits.
    """

    name: str
    format: str = ''
    width: int = 0
    height: int = 0
    channels: int = 0
    error: str = ''
    mode: str = ''
    bits: int = 8
    floats: bool = False
    turned: bool = False
    animated: bool = False
    low: float | None = None
    high: float | None = None

    @property
    def kind(self) -> str:
        return 'float' if self.floats else 'integer'


def look_at(place: Place, channels: int, full: bool = False, value_range: ValueRange = None) -> Look:
    """Format, size, channels, depth of one image; never raises for what is in a file."""
    name = place.name.replace('\t', ' ').replace('\n', ' ')
    if name != place.name:
        return Look(name, error='a tab or line break in its name')
    try:
        look = _header(place)
        check_pixels(look.width, look.height, look.channels)
        kind, has = look.format, look.channels
        if has != channels and (channels not in PLAIN or (kind == 'NPY' and (has, channels) != (1, 3))):
            return Look(name, error=f'it has {has} channels, --channels {channels} are wanted')
        if look.bits > 8 and kind != 'PPM':  # a PGM says what is white
            look, full = _extremes(look, place, channels, value_range), False
        if full or (kind in END_MARKS and END_MARKS[kind] not in _tail(place)):
            own = None if look.low is None else {look.kind: likely_range(look.kind, look.low, look.high)}
            _decode_strictly(place.read(), channels, place.name, own)
        return look
    except Exception as error:  # Pillow's plugins raise anything from SyntaxError to struct.error
        return Look(name, error=reason(error))


def _extremes(look: Look, place: Place, channels: int, value_range: ValueRange) -> Look:
    """With the least and largest value; for channels that are mapped to bytes, within the stated range."""
    data = place.read()
    pixels = np.load(io.BytesIO(data), allow_pickle=False) if look.format == 'NPY' else stored(data, channels in PLAIN)
    if pixels.dtype.kind == 'f' and not np.isfinite(pixels).all():
        raise UnreadableImage('it has values that are not finite (NaN or infinity)')
    if channels in PLAIN and pair_of(value_range, kind_of(pixels.dtype)):
        to_bytes(pixels, value_range)
    floats = pixels.dtype.kind == 'f'
    return replace(look, low=float(pixels.min()), high=float(pixels.max()), floats=floats)


def _header(place: Place) -> Look:
    part = Place(place.name, place.path, place.offset, HEAD if place.size < 0 else min(HEAD, place.size))
    with files.open_regular(place.path) as file:
        file.seek(place.offset)
        head = file.read(part.size)
    if not head:
        raise UnreadableImage('the file is empty')
    if place.name.lower().endswith('.npy'):
        return _npy_header(head, place.name)
    if head[:4] in POSTSCRIPT:
        raise UnreadableImage('it is PostScript, which is a program and no image')
    Image = pillow_image()
    try:
        if not (head[:3] == b'GIF' and len(head) == HEAD):  # how many frames it has stands nowhere in the beginning
            return _described(Image.open(io.BytesIO(head)), head, place.name)
    except DataError:
        raise
    except Exception as error:
        if len(head) < HEAD:
            return _other_tiff(head, place, error)
    data = place.read()  # a long header, e.g. of a TIFF, whose directory may lie at the end
    try:
        return _described(Image.open(io.BytesIO(data)), data, place.name)
    except Exception as error:
        return _other_tiff(data, place, error)


def _described(image, head: bytes, name: str) -> Look:
    mode = image.palette.mode if image.mode == 'P' and image.palette else image.mode
    count = dict(RGBX=3, P=3).get(mode, len(image.getbands()) if image.mode != 'P' else 3)
    if image.mode == 'P' and 'transparency' in image.info:
        count = 4
    bits, floats = bits_of(image, head)
    orientation, size = orientation_of(image), image.size
    if orientation >= 5 and image.format != 'TIFF':  # whose size Pillow gives upright
        size = size[::-1]
    try:
        animated = bool(getattr(image, 'is_animated', False))
    except Exception:  # more frames than the beginning of the file holds
        animated = True
    return Look(
        name,
        image.format or '?',
        *size,
        count,
        mode=image.mode,
        bits=bits,
        floats=floats,
        turned=orientation != 1,
        animated=animated,
    )


def _other_tiff(data: bytes, place: Place, error: Exception) -> Look:
    """A TIFF that Pillow does not know, as one of many channels: decode it."""
    if data[:4] not in TIFFS:
        raise error
    pixels = stored(data, convert=False)
    channels, bits = 1 if pixels.ndim == 2 else pixels.shape[2], 8 * pixels.dtype.itemsize
    mode, floats = f'{channels} x {bits}', pixels.dtype.kind == 'f'
    return Look(place.name, 'TIFF', pixels.shape[1], pixels.shape[0], channels, mode=mode, bits=bits, floats=floats)


def _npy_header(head: bytes, name: str) -> Look:
    file = io.BytesIO(head)
    shape, kind = npy_header(file)
    if len(shape) not in (2, 3) or 0 in shape or kind.hasobject:
        raise UnreadableImage(f'an array of shape {shape} and type {kind} is no image: (H, W) or (H, W, C) is')
    channels, floats = 1 if len(shape) == 2 else shape[2], kind.kind == 'f'
    bits = 1 if kind == np.bool_ else 8 if kind == np.uint8 else max(9, 8 * kind.itemsize)  # not int8
    return Look(name, 'NPY', shape[1], shape[0], channels, mode=str(kind), bits=bits, floats=floats)


def _tail(place: Place) -> bytes:
    with files.open_regular(place.path) as file:
        if place.size >= 0:
            file.seek(place.offset + max(0, place.size - TAIL))
            return file.read(min(TAIL, place.size))
        file.seek(max(0, os.path.getsize(place.path) - TAIL))
        return file.read()


def _decode_strictly(data: bytes, channels: int, name: str, value_range: ValueRange = None) -> None:
    """Pillow fails on a file that is cut off, OpenCV fills what is missing with grey."""
    if not name.lower().endswith('.npy'):
        try:
            with pillow_image().open(io.BytesIO(data)) as image:
                image.load()
        except Exception as error:
            if data[:4] not in TIFFS:
                raise UnreadableImage(reason(error)) from error
    decode(data, channels, name, value_range)
