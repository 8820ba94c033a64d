"""MAE's random crop for linear probing: one draw, clipped to the image."""

from __future__ import annotations

import math
from collections.abc import Sequence

import mmcv
import numpy as np
from mmcv.transforms import BaseTransform
from mmcv.transforms.utils import cache_randomness

from mim_mm.registry import TRANSFORMS


@TRANSFORMS.register_module()
class MAERandomResizedCrop(BaseTransform):
    """A random crop resized to a fixed size, drawn once (He et al. 2022, ``util/crop.py``, which follows TensorFlow).

    Area and aspect ratio are drawn once; a side that is longer than the image is cut to it. torchvision's and
    mmpretrain's ``RandomResizedCrop``, whose options these are, draw again, up to ten times, and then take the centre,
    so that large crops of wide or tall images are rarer there.

    Args:
        scale: size (h, w) or side of the result in pixels.
        crop_ratio_range: least and largest part of the image's area.
        aspect_ratio_range: least and largest width / height, drawn evenly on a logarithmic scale.
        interpolation, backend: of mmcv's ``imresize``.

    Raises:
        ValueError: A range that is empty or not positive.
    """

    def __init__(
        self,
        scale: int | Sequence[int],
        crop_ratio_range: tuple[float, float] = (0.08, 1.0),
        aspect_ratio_range: tuple[float, float] = (3 / 4, 4 / 3),
        interpolation: str = 'bicubic',
        backend: str = 'pillow',
    ) -> None:
        self.scale = (scale, scale) if isinstance(scale, int) else tuple(scale)
        named = dict(crop_ratio_range=crop_ratio_range, aspect_ratio_range=aspect_ratio_range)
        for name, (low, high) in named.items():
            if not 0 < low <= high:
                raise ValueError(f'{name}=({low}, {high}) must be (least, largest), both positive')
        self.crop_ratio_range, self.aspect_ratio_range = crop_ratio_range, aspect_ratio_range
        self.interpolation, self.backend = interpolation, backend

    @cache_randomness
    def rand_crop_params(self, img: np.ndarray) -> tuple[int, int, int, int]:
        """Top, left, height and width in pixels of a crop of ``img`` (H, W, ...)."""
        height, width = img.shape[:2]
        area = np.random.uniform(*self.crop_ratio_range) * height * width
        aspect = math.exp(np.random.uniform(*map(math.log, self.aspect_ratio_range)))
        w = min(max(round(math.sqrt(area * aspect)), 1), width)  # at least a pixel, which the original forgets
        h = min(max(round(math.sqrt(area / aspect)), 1), height)
        top, left = np.random.randint(0, height - h + 1), np.random.randint(0, width - w + 1)
        return top, left, h, w

    def transform(self, results: dict) -> dict:
        """``results['img']`` (H, W, C) becomes (*scale, C); ``img_shape`` follows."""
        top, left, h, w = self.rand_crop_params(results['img'])
        cut = results['img'][top : top + h, left : left + w]
        results['img'] = mmcv.imresize(cut, self.scale[::-1], interpolation=self.interpolation, backend=self.backend)
        results['img_shape'] = results['img'].shape[:2]
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(scale={self.scale}, interpolation={self.interpolation!r})'
