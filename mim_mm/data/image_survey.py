"""A look at a set of images before anything trains on it: how many, of what kind, how large, and which cannot be read.

By default only headers are read, by Pillow in several threads, which costs a small read of each file. A JPEG or PNG
that lacks the mark at its end is decoded fully, because that is how a file that was cut off looks; so is a file of more
than 8 bits, because only the largest value of the whole set says what counts as white.
"""

from __future__ import annotations

import collections
import io
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from statistics import median_low

import numpy as np

from mim_mm.data.decode import (
    PLAIN,
    TIFFS,
    UnreadableImage,
    bits_of,
    decode,
    orientation_of,
    pillow_image,
    reason,
    stored,
)
from mim_mm.data.image_sources import Place, Source, SourceError, endings
from mim_mm.data.pixel_values import ValueRange, kind_of, likely_range, pair_of, to_bytes
from mim_mm.folders import DataError

HEAD = 1 << 16  # bytes read for a header; where that is not enough the whole file is
TAIL = 64
END_MARKS = dict(JPEG=b'\xff\xd9', PNG=b'IEND')
CHUNK = 4096


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


@dataclass(frozen=True)
class Survey:
    """What a set holds. ``looks`` in the order of the source."""

    source: Source
    looks: tuple[Look, ...]
    channels: int
    decoded: bool = False
    stated: ValueRange = None  # by the user

    @property
    def value_range(self) -> dict | None:
        """``dict(integer=(low, high), float=(low, high))``, of what the set has more than 8 bits of; None for 8 bits.

        Decided for the set: the least usual depth that holds its largest value, see ``pixel_values.likely_range``.
        """
        return common_range([self])

    @property
    def readable(self) -> list[Look]:
        return [look for look in self.looks if not look.error]

    @property
    def unreadable(self) -> list[Look]:
        return [look for look in self.looks if look.error]

    @property
    def places(self) -> list[Place]:
        """Of the readable images."""
        return [place for place, look in zip(self.source.places, self.looks) if not look.error]

    def lines(self, where: str, small: int = 0, at_most: int = 10) -> list[str]:
        """The survey as text.

        Args:
            where: what the user called the set.
            small: px; say how many images are smaller than this on their short side.
            at_most: unreadable files that are named.
        """
        good, bad = self.readable, self.unreadable
        how = 'decoded' if self.decoded else 'headers read'
        out = [f'images     {len(good):,} readable of {len(self.looks):,} in {where} ({self.source.kind}; {how})']
        if good:
            out.append(f'formats    {_counts(look.format for look in good)}')
            for axis in ('width', 'height'):
                sizes = sorted(getattr(look, axis) for look in good)
                out.append(f'{axis:10} {sizes[0]} / {median_low(sizes)} / {sizes[-1]} px (smallest / median / largest)')
            tiny = sum(min(look.width, look.height) < small for look in good)
            if tiny:
                out.append(f"small      {tiny:,} with a side below the model's {small} px; crops of them are enlarged")
            have = collections.Counter(look.channels for look in good)
            text = ', '.join(
                f'{count:,} with {channels}' for channels, count in sorted(have.items(), key=lambda i: (-i[1], i[0]))
            )
            converted = len(good) - have[self.channels]
            out.append(f'channels   {text}' + (f'; {converted:,} converted to {self.channels}' if converted else ''))
            out += self._value_lines(good)
        if self.source.passed_over:
            count = sum(self.source.passed_over.values())
            out.append(f'passed     over {count:,} files of other endings: {endings(self.source.passed_over)}')
        out.append(f'unreadable {len(bad):,}' + (', left out:' if bad else ''))
        out += [f'  {_shown(look.name)}: {look.error}' for look in bad[:at_most]]
        if len(bad) > at_most:
            out.append(f'  ... and {len(bad) - at_most:,} more')
        return out

    def _value_lines(self, good: list[Look]) -> list[str]:
        out = [f'modes      {_counts(look.mode for look in good)}']
        out.append(f'bits       {_counts(map(_depth, good))}')
        for kind, (low, high) in (self.value_range or {}).items():
            some = [look for look in good if look.low is not None and look.kind == kind]
            out.append(
                f'values     {len(some):,} {kind} files of more than 8 bits: {min(look.low for look in some):.6g} to '
                f'{max(look.high for look in some):.6g}, '
                + (f'value range {low:g} to {high:g} becomes 0 to 255' if self.channels in PLAIN else 'kept')
            )
        turned, animated = sum(look.turned for look in good), sum(look.animated for look in good)
        if turned:
            out.append(f'turned     {turned:,} by EXIF, all are set upright')
        if animated:
            out.append(f'frames     {animated:,} with several, the first is taken')
        return out

    def skip_list(self) -> str:
        """The text of ``unreadable.txt``: name, tab, reason."""
        rows = [f'{look.name}\t{look.error}\n' for look in self.unreadable]
        return '# images that are left out in training: name, tab, reason\n' + ''.join(rows)

    def check(self, max_unreadable: float) -> None:
        """Stop for a set that cannot be trained on.

        Raises:
            SourceError: no image is readable, more than the share ``max_unreadable`` is not, or 8 and more bits are
                mixed where values are kept as they are.
        """
        bad, total = len(self.unreadable), len(self.looks)
        first = f'the first: {_shown(self.unreadable[0].name)}: {self.unreadable[0].error}' if bad else ''
        if bad == total:
            raise SourceError(f'none of {total:,} images can be read; {first}')
        if bad > max_unreadable * total:
            raise SourceError(
                f'{bad:,} of {total:,} images cannot be read, more than --max-unreadable {max_unreadable:g}; {first}. '
                'Mend or remove them, or allow more'
            )

        depths = sorted({look.bits for look in self.readable})
        if self.channels not in PLAIN and len(depths) > 1:
            raise SourceError(
                f'--channels {self.channels} keeps the values of the files, and these have {depths} bits: the same '
                'number would mean different things. Convert them to one depth'
            )


def common_range(surveys: Sequence[Survey]) -> dict | None:
    """The value range of several sets that one encoder sees, e.g. training and validation images."""
    out = {}
    for kind in ('integer', 'float'):
        looks = [k for seen in surveys for k in seen.readable if k.low is not None and k.kind == kind]
        if looks:
            stated = pair_of(surveys[0].stated, kind)
            found = likely_range(kind, min(look.low for look in looks), max(look.high for look in looks))
            out[kind] = stated or tuple(found)
    return out or None


def _shown(name: str) -> str:
    """A name that a terminal can take, whatever bytes the file system has."""
    return name.encode('utf-8', 'backslashreplace').decode()


def _depth(look: Look) -> str:
    return f'{look.bits}-bit' + f' {look.kind}' * (look.bits > 8)


def _counts(values) -> str:
    return ', '.join(f'{name} {count:,}' for name, count in collections.Counter(values).most_common())


def survey(
    source: Source,
    channels: int = 3,
    full: bool = False,
    threads: int | None = None,
    say: Callable[[str], None] | None = None,
    value_range: ValueRange = None,
) -> Survey:
    """Look at every image.

    Args:
        channels: C wanted of the model; an image that can neither be converted to it nor has it counts as unreadable.
        full: decode every image instead of reading its header.
        threads: default 8 a core, at most 64, since most of the time is waiting for a disk.
        say: gets a line now and then from large sets.
        value_range: stated by the user, for files of more than 8 bits; one with values outside counts as unreadable.
    """
    threads = threads or min(64, 8 * (os.cpu_count() or 1))
    looks: list[Look] = []
    with ThreadPoolExecutor(threads) as pool, warnings.catch_warnings():
        warnings.simplefilter('ignore')  # Pillow warns of odd metadata, a line an image
        for chunk in _chunks(source.places):
            looks += pool.map(lambda place: look_at(place, channels, full, value_range), chunk)
            if say and len(source) > len(looks) and len(looks) % (25 * CHUNK) == 0:
                say(f'  {len(looks):,} of {len(source):,} looked at')
    return Survey(source, tuple(looks), channels, full, value_range)


def _chunks(places: Sequence[Place]) -> Iterator[Sequence[Place]]:
    for start in range(0, len(places), CHUNK):
        yield places[start : start + CHUNK]


def look_at(place: Place, channels: int, full: bool = False, value_range: ValueRange = None) -> Look:
    """Format, size, channels, depth of one image; never raises for what is in a file."""
    name = place.name.replace('\t', ' ').replace('\n', ' ')
    if name != place.name:
        return Look(name, error='a tab or line break in its name')
    try:
        look = _header(place)
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
    with open(place.path, 'rb') as file:
        file.seek(place.offset)
        head = file.read(part.size)
    if not head:
        raise UnreadableImage('the file is empty')
    if place.name.lower().endswith('.npy'):
        return _npy_header(head, place.name)
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
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, kind = read(file)
    if len(shape) not in (2, 3) or 0 in shape or kind.hasobject:
        raise UnreadableImage(f'an array of shape {shape} and type {kind} is no image: (H, W) or (H, W, C) is')
    channels, floats = 1 if len(shape) == 2 else shape[2], kind.kind == 'f'
    bits = 1 if kind == np.bool_ else 8 if kind == np.uint8 else max(9, 8 * kind.itemsize)  # not int8
    return Look(name, 'NPY', shape[1], shape[0], channels, mode=str(kind), bits=bits, floats=floats)


def _tail(place: Place) -> bytes:
    with open(place.path, 'rb') as file:
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
