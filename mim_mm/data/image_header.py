"""How large an image is, from its header, and the one limit on that: before anything is decoded.

A JPEG of a kilobyte can say that it has a thousand million pixels, and a decoder believes it: 5 GB and half a minute
in every loader worker. ``MIM_MM_MAX_PIXELS`` in the environment, or ``max_pixels`` at the top of a config, moves the
limit for everything that reads images: surveys, training, evaluation, pictures.
"""

from __future__ import annotations

import io
import os
import re
import struct
from dataclasses import dataclass

import numpy as np

from mim_mm.folders import DataError

VARIABLE = 'MIM_MM_MAX_PIXELS'
DEFAULT = 1 << 28  # 268 million, 16,384 x 16,384: 0.8 GB in 8-bit colour; a camera of 200 megapixels passes
CHANNELS = 4  # an image of more counts for more pixels, since it takes as much more memory
PIXEL_LIMIT = int(os.environ.get('OPENCV_IO_MAX_IMAGE_PIXELS') or 1 << 30)  # OpenCV's own, which Pillow is set to
TIFFS = (b'II*\0', b'MM\0*', b'II+\0', b'MM\0+')
POSTSCRIPT = (b'%!PS', b'\xc5\xd0\xd3\xc6')


class UnreadableImage(DataError):
    """An image that cannot be decoded, or not to the channels that are wanted."""


# ---- the limit


def max_pixels() -> int:
    """Most pixels of an image that is decoded; the environment is asked each time, so that workers see it too.

    Raises:
        DataError: the variable is no whole number from 1.
    """
    stated = os.environ.get(VARIABLE, '').strip()
    if not stated:
        return DEFAULT
    try:
        limit = int(float(stated))
    except (ValueError, OverflowError):
        limit = 0
    if limit < 1:
        raise DataError(f"{VARIABLE}='{stated}' must be a number of pixels from 1, e.g. {DEFAULT} (the default)")
    return limit


def pillow_image():
    """``PIL.Image``, which from then on takes images as large as OpenCV does; its own limit is a sixth of that."""
    from PIL import Image

    if Image.MAX_IMAGE_PIXELS is not None and Image.MAX_IMAGE_PIXELS < PIXEL_LIMIT // 2:
        Image.MAX_IMAGE_PIXELS = PIXEL_LIMIT // 2  # Pillow refuses what is above twice this number
    return Image


def state_max_pixels(stated: int | float | None) -> None:
    """Put a config's ``max_pixels`` into the environment, from which this process and its loader workers take it.

    Args:
        stated: None leaves what is there.

    Raises:
        DataError: it is no number of pixels from 1.
    """
    if stated is None:
        return
    if isinstance(stated, bool) or not isinstance(stated, (int, float)) or not 1 <= stated < float('inf'):
        raise DataError(f'max_pixels={stated!r} must be a number of pixels from 1, e.g. {DEFAULT} (the default)')
    os.environ[VARIABLE] = str(int(stated))


def check_pixels(width: int, height: int, channels: int = 1) -> None:
    """Refuse an image that is too large to be decoded.

    Raises:
        UnreadableImage: with its size, the limit and how to move it.
    """
    limit, count = max_pixels(), width * height * max(1, channels / CHANNELS)
    if count > limit:
        more = f' x {channels} channels' if channels > CHANNELS else ''
        raise UnreadableImage(
            f'it says it has {width} x {height} pixels{more}, the limit is {limit / 1e6:.0f} million: if it is no '
            f'damaged or hostile file, set {VARIABLE}={int(count)} or max_pixels in the config'
        )


def check_size(data: bytes, name: str = '') -> None:
    """Refuse a file whose header says that it is too large, before it is decoded. A header that says nothing passes:
    the decoder then fails by itself, or is asked again in :func:`mim_mm.data.decode.stored`.

    Args:
        data: the file's content. name: the file's name; ``.npy`` is known by it.

    Raises:
        UnreadableImage: it is too large, or a program.
    """
    if name.lower().endswith('.npy'):
        return _check_npy(data)
    if data[:4] in POSTSCRIPT:  # Pillow would run it in an interpreter that may read and write files
        raise UnreadableImage('it is PostScript, which is a program and no image')
    size = stated_size(data)
    if size:
        check_pixels(*size)


def check_any_size(data: bytes, name: str = '') -> None:
    """:func:`check_size` of every format, for a decoder that is not ours and asks nobody.

    Raises:
        UnreadableImage: as :func:`check_size`.
    """
    check_size(data, name)
    if stated_size(data):
        return
    try:
        with pillow_image().open(io.BytesIO(data)) as image:
            size = image.size
    except Exception:  # the decoder says it better
        return
    check_pixels(*size)


def stated_size(data: bytes) -> tuple[int, int] | None:
    """(width, height) as stored, of the formats that OpenCV is given; None for others and where nothing is said."""
    if data[:2] == b'\xff\xd8':
        header = read_jpeg_header(data)
        return (header.width, header.height) if header else _any_frame(data)
    try:
        if data[:8] == b'\x89PNG\r\n\x1a\n':
            return struct.unpack_from('>II', data, 16)
        if data[:2] == b'BM':
            if struct.unpack_from('<I', data, 14)[0] == 12:  # OS/2's first header
                return struct.unpack_from('<HH', data, 18)
            width, height = struct.unpack_from('<ii', data, 18)
            return abs(width), abs(height)  # a negative height: the first row is on top
        return _tiff_size(data) if data[:4] in TIFFS else None
    except struct.error:
        return None


def _tiff_size(data: bytes) -> tuple[int, int] | None:
    from PIL.TiffImagePlugin import ImageFileDirectory_v2

    try:
        directory = ImageFileDirectory_v2(data[:16] if data[2:4] in (b'+\0', b'\0+') else data[:8])
        file = io.BytesIO(data)
        file.seek(directory.next)
        directory.load(file)
        return int(directory[256]), int(directory[257])
    except Exception:  # what damaged directories raise is not documented
        return None


def _any_frame(data: bytes) -> tuple[int, int] | None:
    """The largest frame header that a JPEG could have: libjpeg looks for markers across damage."""
    found = []
    for match in re.finditer(rb'\xff[\xc0-\xc3\xc5-\xc7\xc9-\xcb\xcd-\xcf]', data):
        at = match.start()
        if at + 10 <= len(data):
            length, _, height, width, components = struct.unpack_from('>HBHHB', data, at + 2)
            if length == 8 + 3 * components and height and width:
                found.append((width, height))
    return max(found, key=lambda size: size[0] * size[1], default=None)


def npy_header(file) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type of an array in an ``.npy`` file, opened at its beginning.

    Raises:
        ValueError: it is none.
    """
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, kind = read(file)
    return shape, kind


def _check_npy(data: bytes) -> None:
    """numpy takes memory for what the header says before it looks whether that is there."""
    file = io.BytesIO(data)
    try:
        shape, kind = npy_header(file)
    except Exception:  # said by the one who reads it
        return
    count = 1
    for side in shape:
        count *= max(0, side)
    if count * kind.itemsize > len(data) - file.tell():
        raise UnreadableImage(f'it says it has shape {shape} of {kind}, and ends before that')
    if len(shape) in (2, 3):
        check_pixels(shape[1], shape[0], shape[2] if len(shape) == 3 else 1)


# ---- JPEG


@dataclass(frozen=True)
class JpegHeader:
    """Size in pixels as stored, number of colour components, EXIF orientation (1: upright)."""

    height: int
    width: int
    components: int
    orientation: int = 1

    @property
    def simple(self) -> bool:
        """Whether the pixels need neither turning nor a conversion from CMYK, and are not too many."""
        return (
            self.orientation not in range(2, 9)
            and self.components in (1, 3)
            and self.height * self.width <= min(PIXEL_LIMIT, max_pixels())
        )


def read_jpeg_header(data: bytes) -> JpegHeader | None:
    """Walk over the segments of a JPEG up to its frame header; None for anything else, and where it is damaged.

    Source: ITU-T T.81, annex B (segments, SOF); EXIF 2.3, section 4.5 (tag 0x0112).
    """
    if data[:2] != b'\xff\xd8':
        return None
    at, orientation = 2, 1
    while at + 9 < len(data):
        if data[at] != 0xFF:
            return None
        marker = data[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
            continue
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            bits, height, width, components = struct.unpack_from('>BHHB', data, at + 4)
            return JpegHeader(height, width, components, orientation) if bits == 8 and height and width else None
        length = int.from_bytes(data[at + 2 : at + 4], 'big')
        if marker == 0xE1 and data[at + 4 : at + 10] == b'Exif\0\0':
            orientation = _orientation(data[at + 10 : at + 2 + length])
        at += 2 + length
    return None


def _orientation(tiff: bytes) -> int:
    """Tag 0x0112 of the first directory of an EXIF block; 1 where there is none or the block is damaged."""
    order = {b'II*\0': '<', b'MM\0*': '>'}.get(tiff[:4])
    try:
        start = struct.unpack_from(order + 'I', tiff, 4)[0]
        for entry in range(struct.unpack_from(order + 'H', tiff, start)[0]):
            tag, kind, count, value = struct.unpack_from(order + 'HHIH', tiff, start + 2 + 12 * entry)
            if tag == 0x0112:
                return value
    except (struct.error, TypeError):
        pass
    return 1
