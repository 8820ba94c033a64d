"""Images as callers have them: paths, PIL images, arrays in R, G, B."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from mim_mm.data.decode import read_image

__all__ = ['Image', 'as_bgr', 'as_list']

Image = str | os.PathLike | np.ndarray | Any  # Any: PIL.Image.Image


def as_list(images: Image | Iterable[Image]) -> Sequence[Image]:
    """One image as a list of one."""
    single = isinstance(images, (str, os.PathLike)) or hasattr(images, 'convert') or isinstance(images, np.ndarray)
    if single and not (isinstance(images, np.ndarray) and images.ndim == 4):
        return [images]
    found = list(images)
    if not found:
        raise ValueError('no image was given: give a path, a PIL image, an array (H, W, 3), or a list of them')
    return found


def as_bgr(image: Image, value_range: tuple | dict | None = None) -> np.ndarray:
    """(H, W, 3) uint8 in B, G, R, as everything from the decoder on expects it.

    Raises:
        ValueError: an array of another shape or type. FileNotFoundError, UnreadableImage: for paths.
    """
    if isinstance(image, (str, os.PathLike)):
        return read_image(image, value_range)
    if hasattr(image, 'convert'):
        image = np.asarray(image.convert('RGB'))
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
        what = f'an array of {image.dtype}' if isinstance(image, np.ndarray) else f'a {type(image).__name__}'
        raise ValueError(
            f'{what} is no image here: give a path, a PIL image, or an array (H, W, 3) of uint8 in R, G, B'
        )
    if image.ndim == 2:
        image = np.repeat(image[..., None], 3, axis=2)
    if image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f'an array of shape {image.shape} is no image: (H, W, 3) in R, G, B, or (H, W), is')
    return np.ascontiguousarray(image[..., ::-1])
