"""A folder of images without labels, however deep, and the packing of an image into a bare tensor."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmengine.dataset import BaseDataset

from mim_mm.folders import SUFFIXES, DataError, walk
from mim_mm.registry import DATASETS, TRANSFORMS


class NoImages(DataError, FileNotFoundError):
    """A folder that is not there, or holds no image."""


def list_images(root: str | Path) -> list[str]:
    """All image files below ``root`` in sorted order, as paths; hidden files and folders do not count.

    Raises:
        NoImages: the folder is missing or holds no image.
    """
    root = Path(root)
    if not root.is_dir():
        raise NoImages(f"no folder '{root}': put images there (any depth, {', '.join(SUFFIXES)}), or set data_root")
    found = [os.path.join(at, name) for at, names in walk(root) for name in names if name.lower().endswith(SUFFIXES)]
    if not found:
        raise NoImages(f"no image below '{root}': known endings are {', '.join(SUFFIXES)}")
    return found


@DATASETS.register_module()
class UnlabelledImages(BaseDataset):
    """Every image below ``data_root/data_prefix``; class folders, if any, are ignored.

    Args:
        data_root: folder.
        data_prefix: folder below it, e.g. ``'train'``.
        pipeline: transforms, from ``LoadImageFromFile`` to :class:`PackImage`.
    """

    def __init__(self, data_root: str, data_prefix: str = '', pipeline: list = (), **kwargs) -> None:
        super().__init__(data_root=data_root, data_prefix=dict(img_path=data_prefix), pipeline=list(pipeline), **kwargs)

    def load_data_list(self) -> list[dict]:
        """One ``dict(img_path=...)`` an image; mmengine keeps them as one array shared by the workers."""
        return [dict(img_path=path) for path in list_images(self.data_prefix['img_path'])]


@TRANSFORMS.register_module()
class PackImage(BaseTransform):
    """Turn ``results['img']`` into ``dict(inputs=uint8 tensor (C, H, W))`` and drop everything else.

    Unlabelled images need no DataSample: building and moving them costs more than a third of a loader worker's time.

    Args:
        to_rgb: reverse the channels, since mmcv decodes to BGR.
    """

    def __init__(self, to_rgb: bool = True) -> None:
        self.to_rgb = to_rgb

    def transform(self, results: dict) -> dict:
        if 'img' not in results:
            raise KeyError("PackImage: no 'img'; LazyLoadImageFromFile needs FastRandomResizedCrop behind it")
        image = results['img']
        if image.ndim == 2:
            image = image[..., None]
        if self.to_rgb and image.shape[2] == 3:
            image = image[..., ::-1]
        turned = image.strides[1] < 0  # flipped by numpy, which torch copies ten times faster than numpy does
        if turned:
            image = image[:, ::-1]
        packed = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
        return dict(inputs=packed.flip(2) if turned else packed)
