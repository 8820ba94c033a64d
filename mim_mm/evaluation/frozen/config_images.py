"""The labelled images that a config names, for tools that measure frozen features: its root, lists, splits, classes."""

from __future__ import annotations

import os
from pathlib import Path

from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.registry import init_default_scope

from mim_mm.config_parts import datasets_in, is_wrapper
from mim_mm.evaluation.frozen.folder_images import FolderImages, Preprocess
from mim_mm.registry import DATASETS

__all__ = ['ConfigImages', 'build_listed', 'labelled_images', 'loader_datasets']


def labelled_images(
    cfg: Config, preprocess: Preprocess, root: str | Path | None = None, share: tuple[int, int] = (0, 1)
) -> tuple[FolderImages, FolderImages]:
    """Training and validation images.

    Args:
        root: ``root/train/<class>/*`` and ``root/val/<class>/*``, in place of what the config says. None: the data sets
            of the config's training and validation loader; where it has no labelled ones (a pretraining), its
            ``data_root`` in that same layout.
        share: see :class:`FolderImages`.

    Raises:
        ValueError: nothing names the data; a validation class that training lacks. FileNotFoundError: no data.
    """
    parts = [] if root else [loader_datasets(cfg.get(f'{part}_dataloader')) for part in ('train', 'val')]
    if parts and all(parts) and 'head' in (cfg.get('model') or {}):
        init_default_scope(cfg.get('default_scope') or 'mmpretrain')
        train = ConfigImages(parts[0], preprocess, share=share)
        # A quick probe evaluates on images held out of train too, by which it chooses its head.
        reported = [dataset for dataset in parts[1] if dataset.get('part', 'report') == 'report']
        return train, ConfigImages(reported, preprocess, train.classes, share)
    root = root or cfg.get('data_root')
    if not root:
        raise ValueError(f'{cfg.filename} names no data_root: give --data-root')
    train = FolderImages(root, 'train', preprocess, share=share)
    return train, FolderImages(root, 'val', preprocess, train.classes, share)


def loader_datasets(loader: dict | None) -> list[dict]:
    """The data sets of a loader, those inside of wrappers in place of these."""
    found = [dataset for dataset in datasets_in((loader or {}).get('dataset')) if not is_wrapper(dataset)]
    return [dataset.to_dict() if hasattr(dataset, 'to_dict') else dict(dataset) for dataset in found]


def build_listed(datasets: list[dict], pipeline: list[dict], instead: str) -> tuple[BaseDataset, dict]:
    """The data set of a loader with another pipeline, all of it, and its options.

    Args:
        datasets: as :func:`loader_datasets` gives them; several are refused.
        instead: the option of a tool that names other data, for the messages.

    Raises:
        ValueError: not exactly one. FileNotFoundError: its images cannot be listed.
    """
    if len(datasets) != 1:
        raise ValueError(f'the config joins {len(datasets)} data sets in one loader: give {instead}')
    options = dict(datasets[0], pipeline=pipeline)
    if 'part' in options:  # a quick probe trains on a part, k-NN and low-shot on all of it
        options = {k: v for k, v in options.items() if k not in ('part', 'fraction', 'at_most', 'seed')}
        options['type'] = 'mim_mm.ClassFolders'
    try:
        return DATASETS.build(options), options
    except (RuntimeError, FileNotFoundError) as error:
        where = options.get('ann_file') or options.get('data_prefix') or options.get('data_root')
        raise FileNotFoundError(f'the data of the config, {where}, cannot be listed: {error}') from error


class ConfigImages(FolderImages):
    """A data set of a config, its transforms replaced by those of the evaluation.

    Args:
        datasets: one config; a list of several is refused.
        preprocess, classes, share: see :class:`FolderImages`.

    Raises:
        FileNotFoundError, ValueError: see :class:`FolderImages`.
    """

    def __init__(
        self,
        datasets: list[dict],
        preprocess: Preprocess,
        classes: tuple[str, ...] | None = None,
        share: tuple[int, int] = (0, 1),
    ):
        load = dict(((datasets or [{}])[0].get('pipeline') or [{}])[0])
        own_loader = str(load.get('type')).endswith('LoadAnyImage')
        pipeline = [
            load if own_loader else dict(type='mim_mm.LoadImageFromFile', value_range=preprocess.value_range),
            *preprocess.transforms(),
        ]
        self.images, options = build_listed(datasets, pipeline, '--data-root')
        infos = [self.images.get_data_info(i) for i in range(len(self.images))]
        if not infos or 'gt_label' not in infos[0]:
            raise ValueError(f'the data set {options["type"]} of the config has no labels: give --data-root')
        self.root = Path(getattr(self.images, 'img_prefix', '') or options.get('data_root') or '.')
        labels = [int(info['gt_label']) for info in infos]
        own = self.images.metainfo.get('classes') or tuple(map(str, range(max(labels) + 1)))
        self.classes = tuple(own) if classes is None else tuple(classes)
        unknown = sorted({own[label] for label in labels} - set(self.classes))
        if unknown:
            raise ValueError(f'{self.root} has classes that train lacks ({unknown[:3]}): remove or add them')
        place = {name: number for number, name in enumerate(self.classes)}
        self.items = [
            (os.path.relpath(infos[i]['img_path'], self.root), place[own[labels[i]]]) for i in self._take(share)
        ]
