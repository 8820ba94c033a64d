"""Labelled images as an evaluation sees them: listed as training lists them, prepared without augmentation.

The transform is the one of the published k-NN protocols (DINO eval_knn.py, iBOT, CAPI): short edge 256 bicubic, centre
crop 224.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from mmengine.config import Config
from torch import Tensor
from torch.utils.data import Dataset

from mim_mm.data.class_dataset import ClassFolders
from mim_mm.data.unlabelled import NoImages
from mim_mm.folders import subfolders

__all__ = ['FolderImages', 'Preprocess']


@dataclass(frozen=True)
class Preprocess:
    """What happens between an image file and the backbone.

    resize: short edge in pixels, bicubic (Pillow). crop: side of the centre crop in pixels, at most ``resize``. For a
    backbone of other proportions both are (height, width), and images are brought to ``resize`` whatever theirs are,
    as random crops bring them in training.
    mean, std: of the pixel values 0..255, in the order in which the channels reach the backbone.
    to_rgb: files of three channels are read as BGR; True turns them into RGB before mean and std.
    value_range: black and white of files of more than 8 bits, see ``mim_mm.data.pixel_values``.
    """

    resize: int | tuple[int, int] = 256
    crop: int | tuple[int, int] = 224
    mean: tuple = (123.675, 116.28, 103.53)
    std: tuple = (58.395, 57.12, 57.375)
    to_rgb: bool = True
    value_range: tuple | dict | None = None

    def __post_init__(self):
        pairs = [(side, side) if isinstance(side, int) else tuple(side) for side in (self.crop, self.resize)]
        if isinstance(self.crop, int) != isinstance(self.resize, int) or not all(0 < c <= r for c, r in zip(*pairs)):
            raise ValueError(f'crop {self.crop} must be 1 to resize ({self.resize}): change one of them')

    @classmethod
    def from_config(cls, cfg: Config, resize: int | None = None, crop: int | None = None) -> Preprocess:
        """Mean, std, channel order and value range of a config; crop: its ``img_size`` or 224; resize: crop * 8 / 7."""
        model = cfg.get('model') or {}
        given = model.get('data_preprocessor') or cfg.get('data_preprocessor') or {}
        size = (model.get('backbone') or {}).get('img_size', 224)
        size = size if isinstance(size, int) or size[0] != size[1] else size[0]
        if crop or resize or isinstance(size, int):
            crop = crop or (size if isinstance(size, int) else min(size))
            values = dict(resize=resize or round(crop * 8 / 7), crop=crop)
        else:
            values = dict(resize=tuple(round(side * 8 / 7) for side in size), crop=tuple(size))
        values['value_range'] = cfg.get('value_range')
        if given.get('mean') is not None:
            # Our pretraining swaps the channels when it packs an image, other configs in the preprocessor.
            dataset = (cfg.get('train_dataloader') or {}).get('dataset') or {}
            last = (dataset.get('pipeline') or [{}])[-1]
            packed = last.get('type', '').endswith('PackImage') and last.get('to_rgb', True)
            swapped = any(given.get(key) for key in ('to_rgb', 'bgr_to_rgb', 'rgb_to_bgr'))
            values.update(mean=tuple(given['mean']), std=tuple(given['std']), to_rgb=bool(packed) != swapped)
        return cls(**values)

    def transforms(self) -> list[dict]:
        """What brings a decoded image to the crop. Pillow resizes bytes of 1, 3 or 4 channels, OpenCV everything."""
        scaling = dict(backend='pillow' if len(self.mean) in (1, 3) else 'cv2', interpolation='bicubic')
        if isinstance(self.crop, int):
            size = dict(type='mmpretrain.ResizeEdge', scale=self.resize, edge='short', **scaling)
            return [size, dict(type='mmpretrain.CenterCrop', crop_size=self.crop)]
        size = dict(type='Resize', scale=tuple(reversed(self.resize)), **scaling)
        return [size, dict(type='mmpretrain.CenterCrop', crop_size=tuple(reversed(self.crop)))]

    def normalize(self, images: Tensor) -> Tensor:
        """BGR (B, 3, H, W) or other channels -> float32 (B, C, H, W) as the backbone expects it, on the same device."""
        images = (images.flip(1) if self.to_rgb and images.shape[1] == 3 else images).float()
        mean, std = (_channels(tuple(v), images.device) for v in (self.mean, self.std))
        return (images - mean) / std


@lru_cache(maxsize=16)
def _channels(values: tuple, device: torch.device) -> Tensor:
    """(1, C, 1, 1); kept, because copying it to a GPU for every batch would wait for the batch before."""
    return torch.tensor(values, device=device).view(1, -1, 1, 1)


class FolderImages(Dataset):
    """``root/split/<class>/**`` as training lists it (ClassFolders); item: (uint8 BGR (3, crop, crop), label).

    Args:
        classes: class names in label order. None: the folders of this split. Give those of train for val, so that a
            class that val lacks does not shift the labels of the others.
        share: (i, n): only the i-th of n consecutive parts of nearly equal size, for n processes.

    Raises:
        FileNotFoundError: no such folder, or no image in its class folders.
        ValueError: a class that is not among ``classes``; fewer images than parts.
    """

    def __init__(
        self,
        root: str | Path,
        split: str,
        preprocess: Preprocess,
        classes: tuple[str, ...] | None = None,
        share: tuple[int, int] = (0, 1),
    ):
        self.root = Path(root) / split
        if not self.root.is_dir():
            raise NoImages(f'no folder {self.root}: lay images out as ROOT/{split}/<class>/*, or name ROOT')
        load = dict(type='mim_mm.LoadImageFromFile', value_range=preprocess.value_range)
        if len(preprocess.mean) != 3:
            load.update(type='mim_mm.LoadAnyImage', channels=len(preprocess.mean))
        pipeline = [load, *preprocess.transforms()]
        trained = Path(root).absolute() / 'train'
        if classes is not None and trained.is_dir() and subfolders(trained) == list(classes):
            classes = str(trained)  # the folder says more than the names: which of them are empty
        self.images = ClassFolders(data_prefix=str(self.root), pipeline=pipeline, classes_from=classes)
        self.classes = tuple(self.images.metainfo['classes'])
        infos = map(self.images.get_data_info, self._take(share))
        self.items = [(os.path.relpath(d['img_path'], self.root), d['gt_label']) for d in infos]

    def _take(self, share: tuple[int, int]) -> range:
        """The images of this share; sets where it starts."""
        (part, parts), count = share, len(self.images)
        if not 0 <= part < parts <= count:
            raise ValueError(f'{self.root} has {count} images, not enough for part {part} of {parts}: lower GPUS')
        self.start = part * count // parts
        return range(self.start, (part + 1) * count // parts)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = self.images[self.start + index]['img']
        image = image[..., None] if image.ndim == 2 else image  # one channel
        return torch.from_numpy(image.transpose(2, 0, 1).copy()), self.items[index][1]

    def digest(self) -> str:
        """sha256 of names, labels, sizes and modification times; where the folder lies does not count."""
        sha = hashlib.sha256()
        for name, label in self.items:
            state = os.stat(self.root / name)
            sha.update(f'{name}\0{label}\0{state.st_size}\0{state.st_mtime_ns}\n'.encode('utf-8', 'surrogateescape'))
        return sha.hexdigest()
