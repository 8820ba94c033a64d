"""MAE's random crop for linear probing: one draw, clipped to the image."""

from __future__ import annotations

import math

import numpy as np
from mmcv.transforms.utils import cache_randomness

from mim_mm.data.fast_crop import FastRandomResizedCrop
from mim_mm.registry import TRANSFORMS


@TRANSFORMS.register_module()
class MAERandomResizedCrop(FastRandomResizedCrop):
    """A random crop resized to a fixed size, drawn once (He et al. 2022, ``util/crop.py``, which follows TensorFlow).

    Area and aspect ratio are drawn once; a side that is longer than the image is cut to it. torchvision's and
    mmpretrain's ``RandomResizedCrop`` draw again, up to ten times, and then take the centre, so that large crops of
    wide or tall images are rarer there.

    Args:
        scale: size (h, w) or side of the result in pixels.
        crop_ratio_range: least and largest part of the image's area.
        aspect_ratio_range: least and largest width / height, drawn evenly on a logarithmic scale.
        **kwargs: ``interpolation``, ``decoder`` and ``skip_unreadable`` of :class:`FastRandomResizedCrop`.

    Raises:
        ValueError: A range that is empty or not positive.
    """

    def __init__(
        self,
        scale: int | tuple[int, int],
        crop_ratio_range: tuple[float, float] = (0.08, 1.0),
        aspect_ratio_range: tuple[float, float] = (3 / 4, 4 / 3),
        **kwargs,
    ) -> None:
        named = dict(crop_ratio_range=crop_ratio_range, aspect_ratio_range=aspect_ratio_range)
        for name, (low, high) in named.items():
            if not 0 < low <= high:
                raise ValueError(f'{name}=({low}, {high}) must be (least, largest), both positive')
        super().__init__(scale, crop_ratio_range, aspect_ratio_range, **kwargs)

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
