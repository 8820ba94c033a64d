"""Images without labels as an evaluation of frozen features sees them: drawn from a set, once each or in random views.

Any set that a pretraining reads: a folder at any depth, a list, tar shards, or the data set of a config.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from torch import Tensor
from torch.utils.data import Dataset

from mim_mm.data.fast_crop import cut, resize
from mim_mm.data.image_sources import find_source
from mim_mm.data.own_images import LoadAnyImage
from mim_mm.evaluation.frozen.config_images import build_listed, loader_datasets
from mim_mm.evaluation.frozen.folder_images import Preprocess
from mim_mm.registry import TRANSFORMS
from mim_mm.seeds import mix

__all__ = ['DrawnImages', 'Views', 'find_images']


@dataclass(frozen=True)
class Views:
    """Random views of an image: a crop of random area and aspect, resized to the crop of the evaluation, and a flip.

    count: of each image. area: least and largest part of the image's area. aspect: width / height, drawn evenly on a
    logarithmic scale. flip: probability of a horizontal flip. seed: of all draws; a view depends on it, on the place of
    its image in the set and on its own number.

    Raises:
        ValueError: a range that is empty, or outside of what it means.
    """

    count: int = 50
    area: tuple[float, float] = (0.08, 1.0)
    aspect: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = 0.5
    seed: int = 0

    def __post_init__(self):
        if self.count < 2:
            raise ValueError(f'{self.count} views of an image: at least 2 are needed to tell noise from content')
        if not 0 < self.area[0] <= self.area[1] <= 1:
            raise ValueError(f'area {self.area} must be the least and the largest part of an image, in 0 to 1')
        if not 0 < self.aspect[0] <= self.aspect[1] or not 0 <= self.flip <= 1:
            raise ValueError(f'aspect {self.aspect} must be positive and rise, flip {self.flip} a probability')


def find_images(cfg: Config, given: str | Path | None = None) -> tuple[list[dict], Path]:
    """All images of a set, sorted as it lists them: ``dict(img_path, name, offset, size)`` each, and its root.

    Args:
        given: folder, list, tar shard or glob of them, as ``--images`` of tools/transfer.py; None: the data set of the
            config's training loader.

    Raises:
        SourceError: nothing is there. FileNotFoundError, ValueError: the config names no images that can be listed.
    """
    if given is not None:
        root = Path(given).expanduser().absolute()
        places = find_source(root).places
        return [dict(img_path=p.path, name=p.name, offset=p.offset, size=p.size) for p in places], root
    init_default_scope(cfg.get('default_scope') or 'mmpretrain')
    found = loader_datasets(cfg.get('train_dataloader'))
    if not found:
        raise ValueError(f'{cfg.filename} has no training images: give --images')
    images, options = build_listed(found, [], '--images')
    if not hasattr(images, 'get_data_info'):
        raise ValueError(f'images of {options["type"]} are streamed and cannot be drawn from: give --images')
    infos = [images.get_data_info(i) for i in range(len(images))]
    if not infos or 'img_path' not in infos[0]:
        raise ValueError(f'the data set {options["type"]} of the config lists no image files: give --images')
    root = Path(options.get('data_root') or '.').absolute()
    kept = ('img_path', 'name', 'offset', 'size')
    return [dict(name=os.path.relpath(d['img_path'], root)) | {k: d[k] for k in kept if k in d} for d in infos], root


class DrawnImages(Dataset):
    """Some images of a set, or ``views.count`` random views of each; item: (uint8 BGR (3, h, w), number of the image).

    What :func:`mim_mm.evaluation.frozen.features.extract` takes, with the image as its own class.

    Args:
        infos, root: of :func:`find_images`.
        at_most: how many images are drawn by ``seed``; fewer are the first of the same order, so a smaller draw is part
            of a larger one.
        views: None: each image once, without augmentation.

    Raises:
        UnreadableImage: naming the file, when its item is asked for.
    """

    classes: tuple[str, ...] = ()

    def __init__(
        self,
        infos: Sequence[dict],
        root: Path,
        preprocess: Preprocess,
        at_most: int,
        views: Views | None = None,
        seed: int = 0,
    ):
        self.places = np.sort(np.random.default_rng([seed, 2]).permutation(len(infos))[:at_most]).tolist()
        self.infos = [infos[place] for place in self.places]
        self.root, self.views = root, views
        self.load = LoadAnyImage(len(preprocess.mean), value_range=preprocess.value_range)
        self.steps = [TRANSFORMS.build(step) for step in preprocess.transforms()]
        self.size = (preprocess.crop,) * 2 if isinstance(preprocess.crop, int) else tuple(preprocess.crop)
        count = views.count if views else 1
        self.items = [(info['name'], number) for number, info in enumerate(self.infos) for _ in range(count)]
        self._decoded: tuple[int, np.ndarray | None] = (-1, None)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        number = self.items[index][1]
        if self._decoded[0] != number:  # a worker gets the views of an image one after the other
            self._decoded = number, self.load(dict(self.infos[number]))['img']
        image = self._decoded[1]
        if self.views:
            return self._view(image, mix(self.views.seed, self.places[number], index % self.views.count)), number
        results = dict(img=image, img_shape=image.shape[:2])
        for step in self.steps:
            results = step(results)
        return torch.from_numpy(_three_axes(results['img']).transpose(2, 0, 1).copy()), number

    def _view(self, image: np.ndarray, number: int) -> Tensor:
        from torchvision.transforms import RandomResizedCrop

        image = _three_axes(image)
        with torch.random.fork_rng(devices=[]):  # a training around it draws what it would have drawn
            torch.default_generator.manual_seed(number)
            like = torch.empty(1).expand(1, *image.shape[:2])  # the sizes are asked of it, and nothing else
            box = RandomResizedCrop.get_params(like, list(self.views.area), list(self.views.aspect))
            turned = float(torch.rand(())) < self.views.flip
        view = resize(cut(image, box), self.size)
        return view.flip(2) if turned else view

    def digest(self) -> str:
        """sha256 of names, sizes and times of the files, and of the views; where the folder lies does not count."""
        sha = hashlib.sha256(repr(self.views).encode())
        for info in self.infos:
            state = os.stat(info['img_path'])
            place = f'{info["name"]}\0{info.get("offset", 0)}\0{state.st_size}\0{state.st_mtime_ns}\n'
            sha.update(place.encode('utf-8', 'surrogateescape'))
        return sha.hexdigest()


def _three_axes(image: np.ndarray) -> np.ndarray:
    return image[..., None] if image.ndim == 2 else image
