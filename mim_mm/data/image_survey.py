"""A look at a set of images before anything trains on it: how many, of what kind, how large, and which cannot be read.

By default only headers are read, by Pillow in several threads, which costs a small read of each file. A JPEG or PNG
that lacks the mark at its end is decoded fully, because that is how a file that was cut off looks.
"""

from __future__ import annotations

import collections
import io
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import median_low

import numpy as np

from .decode import PLAIN, UnreadableImage, decode, reason
from .image_sources import Place, Source, SourceError

HEAD = 1 << 16  # bytes read for a header; where that is not enough the whole file is
TAIL = 64
END_MARKS = dict(JPEG=b'\xff\xd9', PNG=b'IEND')
CHUNK = 4096


@dataclass(frozen=True)
class Look:
    """What one image says of itself, or why it cannot be read."""

    name: str
    format: str = ''
    width: int = 0
    height: int = 0
    channels: int = 0
    error: str = ''


@dataclass(frozen=True)
class Survey:
    """What a set holds. ``looks`` in the order of the source."""

    source: Source
    looks: tuple[Look, ...]
    channels: int
    decoded: bool = False

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
        out.append(f'unreadable {len(bad):,}' + (', left out:' if bad else ''))
        out += [f'  {_shown(look.name)}: {look.error}' for look in bad[:at_most]]
        if len(bad) > at_most:
            out.append(f'  ... and {len(bad) - at_most:,} more')
        return out

    def skip_list(self) -> str:
        """The text of ``unreadable.txt``: name, tab, reason."""
        rows = [f'{look.name}\t{look.error}\n' for look in self.unreadable]
        return '# images that are left out in training: name, tab, reason\n' + ''.join(rows)

    def check(self, max_unreadable: float) -> None:
        """Stop for a set that cannot be trained on.

        Raises:
            SourceError: no image is readable, or more than the share ``max_unreadable`` is not.
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


def _shown(name: str) -> str:
    """A name that a terminal can take, whatever bytes the file system has."""
    return name.encode('utf-8', 'backslashreplace').decode()


def _counts(values) -> str:
    return ', '.join(f'{name} {count:,}' for name, count in collections.Counter(values).most_common())


def survey(
    source: Source,
    channels: int = 3,
    full: bool = False,
    threads: int | None = None,
    say: Callable[[str], None] | None = None,
) -> Survey:
    """Look at every image.

    Args:
        channels: C wanted of the model; an image that can neither be converted to it nor has it counts as unreadable.
        full: decode every image instead of reading its header.
        threads: default 8 a core, at most 64, since most of the time is waiting for a disk.
        say: gets a line now and then from large sets.
    """
    threads = threads or min(64, 8 * (os.cpu_count() or 1))
    looks: list[Look] = []
    with ThreadPoolExecutor(threads) as pool, warnings.catch_warnings():
        warnings.simplefilter('ignore')  # Pillow warns of odd metadata, a line an image
        for chunk in _chunks(source.places):
            looks += pool.map(lambda place: look_at(place, channels, full), chunk)
            if say and len(source) > len(looks) and len(looks) % (25 * CHUNK) == 0:
                say(f'  {len(looks):,} of {len(source):,} looked at')
    return Survey(source, tuple(looks), channels, full)


def _chunks(places: Sequence[Place]) -> Iterator[Sequence[Place]]:
    for start in range(0, len(places), CHUNK):
        yield places[start : start + CHUNK]


def look_at(place: Place, channels: int, full: bool = False) -> Look:
    """Format, size and channels of one image; never raises for what is in a file."""
    name = place.name.replace('\t', ' ').replace('\n', ' ')
    if name != place.name:
        return Look(name, error='a tab or line break in its name')
    try:
        kind, width, height, has = _header(place)
        if has != channels and (channels not in PLAIN or (kind == 'NPY' and (has, channels) != (1, 3))):
            return Look(name, error=f'it has {has} channels, --channels {channels} are wanted')
        if full or (kind in END_MARKS and END_MARKS[kind] not in _tail(place)):
            _decode_strictly(place.read(), channels, place.name)
        return Look(name, kind, width, height, has)
    except Exception as error:  # Pillow's plugins raise anything from SyntaxError to struct.error
        return Look(name, error=reason(error))


def _header(place: Place) -> tuple[str, int, int, int]:
    from PIL import Image

    part = Place(place.name, place.path, place.offset, HEAD if place.size < 0 else min(HEAD, place.size))
    with open(place.path, 'rb') as file:
        file.seek(place.offset)
        head = file.read(part.size)
    if not head:
        raise UnreadableImage('the file is empty')
    if place.name.lower().endswith('.npy'):
        return _npy_header(head)
    try:
        return _described(Image.open(io.BytesIO(head)))
    except Exception as error:
        if len(head) < HEAD:
            return _other_tiff(head, place, error)
    data = place.read()  # a long header, e.g. of a TIFF, whose directory may lie at the end
    try:
        return _described(Image.open(io.BytesIO(data)))
    except Exception as error:
        return _other_tiff(data, place, error)


def _described(image) -> tuple[str, int, int, int]:
    mode = image.palette.mode if image.mode == 'P' and image.palette else image.mode
    count = dict(RGBX=3, P=3).get(mode, len(image.getbands()) if image.mode != 'P' else 3)
    if image.mode == 'P' and 'transparency' in image.info:
        count = 4
    return image.format or '?', image.width, image.height, count


def _other_tiff(data: bytes, place: Place, error: Exception) -> tuple[str, int, int, int]:
    """A TIFF that Pillow does not know, as one of many channels: decode it."""
    if data[:4] not in (b'II*\0', b'MM\0*', b'II+\0', b'MM\0+'):
        raise error
    from .decode import _as_stored

    pixels = _as_stored(data)
    return 'TIFF', pixels.shape[1], pixels.shape[0], 1 if pixels.ndim == 2 else pixels.shape[2]


def _npy_header(head: bytes) -> tuple[str, int, int, int]:
    file = io.BytesIO(head)
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, kind = read(file)
    if len(shape) not in (2, 3) or 0 in shape or kind.hasobject:
        raise UnreadableImage(f'an array of shape {shape} and type {kind} is no image: (H, W) or (H, W, C) is')
    return 'NPY', shape[1], shape[0], 1 if len(shape) == 2 else shape[2]


def _tail(place: Place) -> bytes:
    with open(place.path, 'rb') as file:
        if place.size >= 0:
            file.seek(place.offset + max(0, place.size - TAIL))
            return file.read(min(TAIL, place.size))
        file.seek(max(0, os.path.getsize(place.path) - TAIL))
        return file.read()


def _decode_strictly(data: bytes, channels: int, name: str) -> None:
    """Pillow fails on a file that is cut off, OpenCV fills what is missing with grey."""
    if not name.lower().endswith('.npy'):
        from PIL import Image

        try:
            with Image.open(io.BytesIO(data)) as image:
                image.load()
        except Exception as error:
            if data[:4] not in (b'II*\0', b'MM\0*', b'II+\0', b'MM\0+'):
                raise UnreadableImage(reason(error)) from error
    decode(data, channels, name)


def write_skip_list(path: Path, text: str) -> None:
    """Whole or not at all."""
    temporary = path.with_name(f'.{path.name}.{os.getpid()}.tmp')
    temporary.write_text(text, encoding='utf-8', errors='surrogateescape')
    os.replace(temporary, path)
