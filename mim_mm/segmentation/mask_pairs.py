"""Images and masks from a list of pairs, and the numbers of the masks as labels of classes."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
from mmcv.transforms import BaseTransform
from mmseg.datasets import BaseSegDataset

from mim_mm.data.mask_files import IGNORE, read_mask
from mim_mm.folders import DataError
from mim_mm.registry import DATASETS, TRANSFORMS


@DATASETS.register_module()
class MaskPairs(BaseSegDataset):
    """mmseg's data set whose ``ann_file`` has ``image<tab>mask`` a line, relative to ``data_root``.

    Arguments are those of ``BaseSegDataset``; ``metainfo=dict(classes=...)`` is needed.

    Raises:
        DataError: a line without a tab.
    """

    def load_data_list(self) -> list[dict]:
        rows = []
        with open(self.ann_file, encoding='utf-8') as file:
            lines = file.read().split('\n')
        for place, line in enumerate(lines, 1):
            if not line:
                continue
            image, tab, mask = line.partition('\t')
            if not tab:
                raise DataError(f"'{self.ann_file}', line {place}: {line!r} must be IMAGE<tab>MASK")
            row = dict(label_map=None, reduce_zero_label=False, seg_fields=[])
            rows.append(dict(row, img_path=self._path(image), seg_map_path=self._path(mask)))
        return rows

    def _path(self, name: str) -> str:
        return os.path.join(self.data_root or '', name)


@TRANSFORMS.register_module()
class LoadMask(BaseTransform):
    """Read ``seg_map_path`` as labels: ``gt_seg_map`` (H, W) uint8, the place of each number in ``values``.

    mmseg's ``LoadAnnotations`` takes numbers modulo 256 and trains on whatever they are.

    Args:
        values: number in the file of class 0, 1, ...
        ignored: numbers of pixels that are not learnt and not counted; they become 255.

    Raises:
        DataError: a number that is in neither, or a mask of another size than the image; with its path.
    """

    def __init__(self, values: Sequence[int], ignored: Sequence[int] = (IGNORE,)) -> None:
        self.values, self.ignored = tuple(values), tuple(ignored)
        both = set(self.values) & set(self.ignored)
        if both or len(set(self.values)) != len(self.values) or len(self.values) >= IGNORE:
            raise ValueError(
                f'LoadMask: values={self.values} must be different numbers, fewer than {IGNORE}, and none of '
                f'ignored={self.ignored}'
            )
        largest = max((*self.values, *self.ignored))
        self.table = np.full(largest + 2, -1, np.int16)  # the last place is that of anything larger
        self.table[list(self.values)] = np.arange(len(self.values))
        self.table[list(self.ignored)] = IGNORE

    def transform(self, results: dict) -> dict:
        path = results['seg_map_path']
        numbers = read_mask(path).astype(np.int64)
        if numbers.shape != tuple(results['ori_shape']):
            raise DataError(
                f"mask '{path}' is {numbers.shape[1]} x {numbers.shape[0]} px, its image {results['ori_shape'][1]} x "
                f'{results["ori_shape"][0]}: they must be of one size'
            )
        labels = self.table[np.clip(numbers, -1, len(self.table) - 1)]
        if (labels < 0).any():
            raise DataError(
                f"mask '{path}' has the number {numbers[labels < 0].min()}, which is no class (values={self.values}) "
                f'and not in ignored={self.ignored}: add it to one of them in the config'
            )
        results['gt_seg_map'] = labels.astype(np.uint8)
        results['seg_fields'].append('gt_seg_map')
        return results
