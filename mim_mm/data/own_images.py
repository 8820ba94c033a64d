"""Pretraining on images of one's own: a folder, a list or tar shards; any size, format and number of channels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import mmcv
import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmengine.dataset import BaseDataset
from mmengine.logging import print_log
from mmengine.model import BaseDataPreprocessor
from torch import Tensor

from mim_mm.data.decode import UnreadableImage, decode
from mim_mm.data.image_sources import Place, SourceError, open_source
from mim_mm.data.pixel_values import ValueRange
from mim_mm.registry import DATASETS, MODELS, TRANSFORMS


def read_skip_list(path: str | Path) -> set[str]:
    """Names in ``unreadable.txt``: one a line, what follows a tab is the reason."""
    with open(path, encoding='utf-8-sig', errors='surrogateescape') as file:
        return {line.rstrip('\n').split('\t')[0] for line in file if line.strip() and not line.startswith('#')}


@DATASETS.register_module()
class OwnImages(BaseDataset):
    """Unlabelled images of a folder, a list or tar shards, without those that a survey found unreadable.

    A sample is ``dict(img_path, offset, size)`` for :class:`LoadAnyImage`, which must be the first transform.

    Args:
        data_root: folder; alone, every image below it at any depth.
        ann_file: a list of images, or one ``.tar``; see :func:`mim_mm.data.image_sources.open_source`.
        shards: glob of ``.tar`` files below ``data_root``.
        skip_list: text file of names to leave out. Missing: nothing is left out, which the log says.
        pipeline: transforms.

    Raises:
        SourceError: nothing is there, or nothing is left.
    """

    def __init__(
        self,
        data_root: str,
        ann_file: str = '',
        shards: str = '',
        skip_list: str | None = None,
        pipeline: Sequence = (),
        **kwargs,
    ) -> None:
        self.where = dict(data_root=data_root, ann_file=ann_file, shards=shards)
        self.skip_list = skip_list
        super().__init__(data_root=data_root, ann_file=ann_file, pipeline=list(pipeline), **kwargs)

    def load_data_list(self) -> list[dict]:
        """One dict an image; mmengine keeps them as one array shared by the workers."""
        skip: set[str] = set()
        if self.skip_list and Path(self.skip_list).is_file():
            skip = read_skip_list(self.skip_list)
        elif self.skip_list:
            print_log(f'{self.skip_list} is not there: no image is left out beforehand', logger='current')
        places = [place for place in open_source(**self.where).places if place.name not in skip]
        if not places:
            raise SourceError(f"no image of '{self.data_root}' is left: all are listed in {self.skip_list}")
        return [dict(img_path=p.path, offset=p.offset, size=p.size, name=p.name) for p in places]


def with_channels(image: np.ndarray, channels: int) -> np.ndarray:
    """A decoded image, (H, W) or (H, W, C) in B, G, R, with other channels: grey repeated, or colour as luminance.

    Raises:
        UnreadableImage: neither number of channels is 1 or 3, and they differ.
    """
    given = 1 if image.ndim == 2 else image.shape[2]
    if given == channels:
        return image[..., 0] if channels == 1 and image.ndim == 3 else image
    if {given, channels} != {1, 3}:
        raise UnreadableImage(f'an image of {given} channels was given, {channels} are wanted: give an array of them')
    return mmcv.bgr2gray(image) if channels == 1 else np.repeat(image.reshape(*image.shape[:2], 1), 3, 2)


@TRANSFORMS.register_module()
class LoadAnyImage(BaseTransform):
    """Read and decode an image of any format, from a file of its own or out of a tar.

    Adds ``img`` (H, W, C), for one channel (H, W); ``img_shape`` and ``ori_shape`` (H, W). Takes the place of
    ``LoadImageFromFile``. Samples that have ``img`` and no ``img_path``, as those of mmpretrain's inferencers, pass,
    with these channels.

    Args:
        channels: C, see :func:`mim_mm.data.decode.decode`.
        skip_unreadable: an image that cannot be read is logged once a worker and another one takes its place;
            otherwise it stops the run, which is right for evaluation.
        value_range: black and white of files of more than 8 bits, see :mod:`mim_mm.data.pixel_values`.

    Raises:
        UnreadableImage: with the name of the file and the reason, if ``skip_unreadable`` is off.
        ValueRangeError: values without a stated range, or outside of it; such a file is never passed over.
    """

    def __init__(self, channels: int = 3, skip_unreadable: bool = False, value_range: ValueRange = None) -> None:
        if channels < 1:
            raise ValueError(f'channels={channels} must be at least 1')
        self.channels = channels
        self.skip_unreadable = skip_unreadable
        self.value_range = value_range
        self._told: set[str] = set()

    def transform(self, results: dict) -> dict | None:
        if 'img' in results and 'img_path' not in results:
            return dict(results, img=with_channels(results['img'], self.channels))
        place = Place(
            str(results.get('name') or results['img_path']),
            results['img_path'],
            results.get('offset', 0),
            results.get('size', -1),
        )
        try:
            image = decode(place.read(), self.channels, place.name, self.value_range)
        except (OSError, UnreadableImage) as error:
            if not self.skip_unreadable:
                raise UnreadableImage(f"'{place.name}' cannot be read: {error}") from error
            if place.name not in self._told:
                self._told.add(place.name)
                print_log(f"'{place.name}' cannot be read and is passed over: {error}", logger='current')
            return None
        results.update(img=image, img_shape=image.shape[:2], ori_shape=image.shape[:2])
        return results


@MODELS.register_module()
class ChannelNormalizer(BaseDataPreprocessor):
    """Standardise images of any number of channels; mmengine's ``ImgDataPreprocessor`` takes 1 or 3.

    Args:
        mean: C values, in the numbers of the images.
        std: C values, above 0.
        non_blocking: copy to the device without waiting.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float], non_blocking: bool = False) -> None:
        super().__init__(non_blocking)
        if len(mean) != len(std) or not all(s > 0 for s in std):
            raise ValueError(f'mean={list(mean)} and std={list(std)}: as many values in both, std above 0')
        self.register_buffer('mean', torch.tensor(mean, dtype=torch.float32).view(-1, 1, 1), False)
        self.register_buffer('std', torch.tensor(std, dtype=torch.float32).view(-1, 1, 1), False)

    def forward(self, data: dict, training: bool = False) -> dict:
        """``data['inputs']``, (B, C, H, W) or a list of (C, H, W) of one size, to fp32 (B, C, H, W)."""
        data = self.cast_data(data)
        images = data['inputs']
        images = images if isinstance(images, Tensor) else torch.stack(list(images))
        if images.shape[1] != len(self.mean):
            raise ValueError(f'images have {images.shape[1]} channels, mean and std {len(self.mean)}')
        data['inputs'] = (images.float() - self.mean) / self.std
        return data
