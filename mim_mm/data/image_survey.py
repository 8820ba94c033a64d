"""A look at a set of images before anything trains on it: how many, of what kind, how large, which cannot be read.

Several threads look at one image each (``image_look``), which costs a small read of most files.
"""

from __future__ import annotations

import collections
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from statistics import median_low

import numpy as np

from mim_mm.data.decode import PLAIN, UnreadableImage, decode
from mim_mm.data.image_look import Look, look_at
from mim_mm.data.image_sources import Place, Source, SourceError, endings
from mim_mm.data.pixel_values import ValueRange, likely_range, pair_of

CHUNK = 4096


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


def channel_statistics(
    places: Sequence[Place], channels: int, sample: int = 256, seed: int = 0, value_range: ValueRange = None
) -> tuple[list, list, int]:
    """Mean and deviation of each channel over the pixels of a sample of images, each image counting the same.

    Args:
        places: the images.
        channels: C.
        sample: how many to read at most, drawn by ``seed``.
        value_range: as in training.

    Returns:
        ``(mean, std, images read)``, C values each in the model's order (R, G, B for three); a channel without any
        variation gets std 1.

    Raises:
        UnreadableImage: none of the sample can be decoded.
    """
    order = np.random.default_rng(seed).permutation(len(places))
    sums, squares, count = np.zeros(channels), np.zeros(channels), 0
    for index in order:
        try:
            image = decode(places[index].read(), channels, places[index].name, value_range).astype(np.float64)
        except (OSError, UnreadableImage):
            continue
        image = image[..., ::-1] if channels == 3 else image.reshape(*image.shape[:2], channels)
        sums, squares, count = sums + image.mean((0, 1)), squares + (image**2).mean((0, 1)), count + 1
        if count >= sample:
            break
    if not count:
        raise UnreadableImage(f'none of {len(places)} images can be decoded to {channels} channels')
    mean = sums / count
    std = np.sqrt(np.maximum(squares / count - mean**2, 0))
    std[std < 1e-6] = 1.0
    return [round(float(v), 4) for v in mean], [round(float(v), 4) for v in std], count
