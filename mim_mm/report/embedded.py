"""Pictures inside a page, small enough that the page can be sent by mail."""

from __future__ import annotations

import base64
import io
from pathlib import Path

__all__ = ['MOST', 'data_uris']

MOST = 1_900_000  # bytes of a page
STEPS = ((1600, 85), (1200, 80), (900, 70), (600, 60))  # width in pixels, quality of WebP


def _uri(data: bytes, kind: str) -> str:
    return f'data:image/{kind};base64,{base64.b64encode(data).decode("ascii")}'


def _as_it_is(path: Path) -> str:
    return _uri(path.read_bytes(), 'jpeg' if path.suffix.lower() in ('.jpg', '.jpeg') else 'png')


def _smaller(path: Path, width: int, quality: int) -> str | None:
    """As WebP of at most this width; None for a file that Pillow cannot read."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            image = image.convert('RGB')
            image.thumbnail((width, 16 * width))
            out = io.BytesIO()
            image.save(out, 'WEBP', quality=quality, method=4)
    except (OSError, ValueError, UnidentifiedImageError, Image.DecompressionBombError):
        return None
    return _uri(out.getvalue(), 'webp')


def data_uris(paths: list[Path], room: int) -> dict[Path, str | None]:
    """Each picture as a data URI, all of them together within ``room`` bytes.

    Pictures stay as they are where they fit; else the largest is made smaller, step by step. None for one that does
    not fit whatever is done.
    """
    found: dict[Path, str | None] = {path: _as_it_is(path) for path in dict.fromkeys(paths)}
    steps = {path: list(STEPS) for path in found}
    while any(found.values()) and _size(found) > room:
        largest = max(found, key=lambda path: len(found[path] or ''))
        if not steps[largest]:
            found[largest] = None
            continue
        smaller = _smaller(largest, *steps[largest].pop(0))
        if smaller and len(smaller) < len(found[largest]):
            found[largest] = smaller
    return found


def _size(found: dict[Path, str | None]) -> int:
    return sum(len(uri) for uri in found.values() if uri)
