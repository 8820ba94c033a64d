"""Random erasing by noise that is standard normal (Zhong et al., AAAI 2020), as timm does it behind the normalisation.

mmpretrain's ``RandomErasing`` writes 8-bit noise before it, which is cut at black and white: its spread is 0.97 with
ImageNet's statistics and 0.72 with mean = std = 0.5. Here a worker draws the box, and the device fills it.
"""

from __future__ import annotations

import math

import numpy as np
from mmcv.transforms import BaseTransform

from mim_mm.registry import TRANSFORMS

ATTEMPTS = 10  # timm's


@TRANSFORMS.register_module()
class RandomErasingBox(BaseTransform):
    """Draw the box that :class:`mim_mm.data.batches.LabelledPreprocessor` fills, one pixel at a time, with noise.

    Adds ``erase_box``, its (top, left, height, width) in pixels of ``img``, zeros for none, which travels by
    ``PackInputs(meta_keys=('erase_box',))`` and ``collate_labelled``. Nothing may move the pixels behind it. A box is
    as large as timm's: its area and the logarithm of its height over width are uniform, and one that is not smaller
    than the image is drawn again, up to ten times.

    Args:
        erase_prob: of erasing anything.
        min_area_ratio, max_area_ratio: of the area of the image.
        aspect_range: height over width, least and most.

    Raises:
        ValueError: a probability or a share outside of 0 to 1, or a range that falls.
    """

    def __init__(
        self,
        erase_prob: float = 0.25,
        min_area_ratio: float = 0.02,
        max_area_ratio: float = 1 / 3,
        aspect_range: tuple[float, float] = (0.3, 1 / 0.3),
    ) -> None:
        if not 0 <= erase_prob <= 1:
            raise ValueError(f'erase_prob={erase_prob} must be a probability, 0 to 1')
        if not 0 < min_area_ratio <= max_area_ratio <= 1:
            raise ValueError(
                f'min_area_ratio={min_area_ratio} and max_area_ratio={max_area_ratio}: need 0 < least <= most <= 1'
            )
        if not 0 < aspect_range[0] <= aspect_range[1]:
            raise ValueError(f'aspect_range={tuple(aspect_range)} must rise and be above 0, e.g. (0.3, 1 / 0.3)')
        self.erase_prob = erase_prob
        self.areas = min_area_ratio, max_area_ratio
        self.aspects = math.log(aspect_range[0]), math.log(aspect_range[1])

    def transform(self, results: dict) -> dict:
        rows, columns = results['img'].shape[:2]
        results['erase_box'] = self.draw(rows, columns) if np.random.random_sample() < self.erase_prob else (0, 0, 0, 0)
        return results

    def draw(self, rows: int, columns: int) -> tuple[int, int, int, int]:
        """A box in an image of that size; zeros where none of ten was small enough."""
        for _ in range(ATTEMPTS):
            area = np.random.uniform(*self.areas) * rows * columns
            aspect = math.exp(np.random.uniform(*self.aspects))
            height, width = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if 0 < height < rows and 0 < width < columns:
                top, left = np.random.randint(rows - height + 1), np.random.randint(columns - width + 1)
                return int(top), int(left), height, width
        return 0, 0, 0, 0
