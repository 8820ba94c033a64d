"""Training images of a low-shot recipe: a published list of file names, or an own draw, of a tree of class folders."""

from __future__ import annotations

import os

import torch
from mmengine.logging import print_log

from mim_mm.data.class_dataset import ClassFolders
from mim_mm.evaluation.frozen.lowshot import draw_split, read_split
from mim_mm.registry import DATASETS


@DATASETS.register_module()
class LowShotImages(ClassFolders):
    """``ClassFolders`` reduced to few labelled images; the classes stay all of them.

    Args:
        ann_file: a list as :func:`mim_mm.evaluation.frozen.lowshot.read_split` reads it, one ``class/file`` or
            ``file`` a line without a label; absolute, or relative to ``data_root``.
        fraction: instead of a list, this part of each class, drawn with ``seed``.
        seed: of the draw.
        kwargs: ``data_root``, ``data_prefix``, ``pipeline``, ... of ``ClassFolders``.

    Raises:
        ValueError: Not exactly one of ``ann_file`` and ``fraction``; a list that does not fit the folder.
        FileNotFoundError: There is no such list.
    """

    def __init__(self, ann_file: str = '', fraction: float | None = None, seed: int = 0, **kwargs):
        if bool(ann_file) == (fraction is not None):
            raise ValueError(
                f'ann_file={ann_file!r} and fraction={fraction}: give the published list as ann_file, or ann_file= and '
                f'fraction=0.01 for an own draw of 1 %.'
            )
        self.fraction, self.seed = fraction, seed
        super().__init__(ann_file=ann_file, **kwargs)

    def load_data_list(self) -> list[dict]:
        """``dict(img_path, gt_label)`` of the chosen images, in the order of the folder."""
        list_file, self.ann_file = self.ann_file, ''
        try:
            images = super().load_data_list()
        finally:
            self.ann_file = list_file
        if list_file:
            if not os.path.isfile(list_file):
                raise FileNotFoundError(
                    f'{list_file} is missing: it is the published list of labelled images, one file name a line '
                    f'(SimCLR v2 has 1 % and 10 %). Set LOWSHOT_LIST to its path, or ann_file= and fraction=0.01 for '
                    f'an own draw.'
                )
            split = read_split(list_file, [os.path.relpath(image['img_path'], self.img_prefix) for image in images])
        else:
            split = draw_split(torch.tensor([image['gt_label'] for image in images]), self.fraction, self.seed)
        print_log(f'{len(split.indices)} of {len(images)} training images: {split.source}', logger='current')
        return [images[i] for i in split.indices]
