"""Other versions of a test set, by folder: which class a folder is, and among which classes is predicted.

=======  ========================================  =====================================================
val      the usual test set                        <class>/*
v2       ImageNet-V2 (Recht et al. 2019)           <place of the class>/*, 0 to 999, or <class>/*
sketch   ImageNet-Sketch (Wang et al. 2019)        <class>/*
a, r     ImageNet-A, ImageNet-R (Hendrycks et al.  <class>/* of 200 classes, among which is predicted
         2021)
c        ImageNet-C (Hendrycks and Dietterich      <corruption>/<severity>/<class>/*
         2019)
=======  ========================================  =====================================================

Classes are numbered by the folders of the training set. Any data set with class folders works.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import init_default_scope
from torch import nn
from torch.utils.data import DataLoader

from mim_mm.checkpoint.read import LoadError, read_checkpoint
from mim_mm.data.class_dataset import ClassFolders
from mim_mm.evaluation.robustness import figures
from mim_mm.folders import DataError, subfolders

AMONG_ITS_OWN = ('a', 'r')  # sets of fewer classes: predicted among these
NAMES = ('val', 'v2', 'sketch', *AMONG_ITS_OWN, 'c')


@dataclass(frozen=True)
class Predictions:
    """Of one folder, n images: paths below it, true and predicted class, probability of the latter."""

    files: tuple[str, ...]
    truth: np.ndarray
    predicted: np.ndarray
    confidence: np.ndarray

    def figures(self) -> dict[str, float]:
        """Top-1 and expected calibration error in per cent, number of images."""
        correct = self.predicted == self.truth
        ece = figures.calibration_error(self.confidence, correct)
        return dict(top1=float(100 * correct.mean()), ece=ece, images=len(correct))


def training_classes(cfg: Config, folder: str | None = None) -> list[str]:
    """Names of the classes in label order: those of ``folder``, or of the config's training set.

    Raises:
        DataError: there is no such folder, or it has other classes than the head.
    """
    data = (cfg.get('train_dataloader') or {}).get('dataset') or {}
    split = data.get('split') or data.get('data_prefix') or 'train'
    folder = folder or os.path.join(data.get('data_root') or '', split if isinstance(split, str) else 'train')
    names = subfolders(folder) if os.path.isdir(folder) else []
    count = cfg.model.head.num_classes
    if len(names) != count:
        raise DataError(
            f"'{folder}' has {len(names)} class folders, the head of the config {count} classes: name the training "
            'folder, whose names number the classes, with --classes DIR'
        )
    return names


def build_classifier(cfg: Config, checkpoint: str, device: str = 'cpu') -> nn.Module:
    """The whole classifier of a checkpoint, for evaluation.

    Raises:
        LoadError, DataError: the file cannot be read, or does not fit the config.
    """
    from mim_mm.registry import MODELS

    init_default_scope(cfg.get('default_scope') or 'mmpretrain')
    settings = cfg.model.to_dict()
    if cfg.get('data_preprocessor'):
        settings.setdefault('data_preprocessor', cfg.data_preprocessor.to_dict())
    model = MODELS.build(settings)
    try:
        model.load_state_dict(read_checkpoint(checkpoint), strict=True)
    except LoadError:
        raise
    except RuntimeError as error:
        raise DataError(f'{checkpoint} does not fit the config: {str(error)[:300]}') from error
    model.train(False)
    return model.to(device)


@torch.no_grad()
def predict(
    model: nn.Module, pipeline: Sequence[dict], folder: str, classes: Sequence[str], name: str, loading: dict
) -> Predictions:
    """Run a classifier on a folder of class folders.

    Args:
        pipeline: transforms of the test set.
        classes: of the head, in label order.
        name: of :data:`NAMES`; says what the folders are called and among which classes is predicted.
        loading: ``batch_size`` and ``workers``.

    Raises:
        DataError: a folder that is no class, or no images.
    """
    found = subfolders(folder) if os.path.isdir(folder) else []
    if name == 'v2' and all(item.isdecimal() for item in found):
        classes = [str(place) for place in range(len(classes))]
    options = dict(classes_from=tuple(classes), serialize_data=False)
    data = ClassFolders(data_prefix=folder, pipeline=list(pipeline), **options)
    infos = [data.get_data_info(place) for place in range(len(data))]
    truth = np.array([info['gt_label'] for info in infos])
    among = np.unique(truth) if name in AMONG_ITS_OWN else np.arange(len(classes))
    columns = torch.as_tensor(among)
    loader = DataLoader(
        data, loading['batch_size'], num_workers=loading['workers'], collate_fn=pseudo_collate, drop_last=False
    )
    predicted, confidence = [], []
    for batch in loader:
        batch = model.data_preprocessor(batch, False)
        scores = model(batch['inputs'], mode='tensor').float().cpu()[:, columns]
        value, place = scores.softmax(dim=1).max(dim=1)
        predicted.append(among[place.numpy()])
        confidence.append(value.numpy())
    files = tuple(os.path.relpath(info['img_path'], folder) for info in infos)
    return Predictions(files, truth, np.concatenate(predicted), np.concatenate(confidence))


def corruptions(folder: str) -> Iterator[tuple[str, int, str]]:
    """(corruption, severity, folder) of ImageNet-C, in the order of AlexNet's table, then others.

    Raises:
        DataError: there are none.
    """
    names = subfolders(folder) if os.path.isdir(folder) else []
    found = [
        (name, int(severity), os.path.join(folder, name, severity))
        for name in sorted(names, key=lambda n: (n not in figures.ALEXNET, n))
        for severity in sorted(subfolders(os.path.join(folder, name)))
        if severity.isdecimal()
    ]
    if not found:
        raise DataError(f"'{folder}' has no CORRUPTION/SEVERITY/<class>/* (gaussian_noise/1/...)")
    yield from found
