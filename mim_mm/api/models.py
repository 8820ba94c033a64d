"""Predictions of trained models: classes of images, objects in images."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import init_default_scope
from torch import nn

from mim_mm.api.images import Image, as_bgr, as_list
from mim_mm.api.sources import config_of
from mim_mm.checkpoint.read import LoadError, read_content, read_weights
from mim_mm.checkpoint.whole import check_whole
from mim_mm.registry import MODELS

__all__ = ['Detection', 'Prediction', 'detect', 'is_detector', 'predict']


@dataclass(frozen=True)
class Prediction:
    """The classes of an image, the most probable first: names, their numbers, and probabilities."""

    names: list[str]
    labels: list[int]
    scores: list[float]

    @property
    def name(self) -> str:
        return self.names[0]


@dataclass(frozen=True)
class Detection:
    """Objects of an image, the surest first.

    Attributes:
        boxes: float (M, 4), x1, y1, x2, y2 in pixels of the image.
        labels: int (M,). scores: float (M,). names: M names of classes.
        masks: bool (M, H, W); None for a detector of boxes alone.
    """

    boxes: np.ndarray
    labels: np.ndarray
    scores: np.ndarray
    names: list[str]
    masks: np.ndarray | None = field(default=None)


def is_detector(config: Config) -> bool:
    """Whether a config is that of a detector, by its parts."""
    model = config.get('model') or {}
    return any(part in model for part in ('roi_head', 'bbox_head', 'rpn_head'))


@dataclass(frozen=True)
class _Model:
    module: nn.Module
    pipeline: Compose
    classes: list[str]
    value_range: tuple | dict | None


def _load(checkpoint, config, device, wanted: str) -> _Model:
    """Everything of the model is from the file; LoadError where it is another model, or of another kind than wanted."""
    cfg, path = config_of(checkpoint, config)
    if is_detector(cfg) != (wanted == 'detector'):
        other = 'use predict()' if wanted == 'detector' else 'use detect()'
        raise LoadError(f'{path} holds a {cfg.model.type}, no {wanted}: {other}')
    if 'head' not in cfg.model and wanted == 'classifier':
        raise LoadError(f'{path} holds a {cfg.model.type} without a head, no classifier: fine-tune or probe it first')
    if cfg.model.type.rpartition('.')[2] == 'MultiProbe':
        raise LoadError(f'{path} holds many probes of one encoder, no classifier: tools/test.py evaluates them')
    loader = cfg.get('test_dataloader') or cfg.get('val_dataloader')
    if not loader:
        raise LoadError(f'the config of {path} has no test_dataloader, whose pipeline prepares images: add one')
    init_default_scope(cfg.get('default_scope') or ('mmdet' if wanted == 'detector' else 'mmpretrain'))
    cfg.model.setdefault('data_preprocessor', cfg.get('data_preprocessor'))
    module = revert_sync_batchnorm(MODELS.build(cfg.model))
    check_whole(module, read_weights(path).tensors, str(path))
    steps = [step for step in loader.dataset.pipeline[1:] if 'LoadAnnotations' not in step.type]
    load = 'mmdet.LoadImageFromNDArray' if wanted == 'detector' else None
    pipeline = Compose([dict(type=load), *steps] if load else steps)
    meta = (read_content(path).get('meta') or {}).get('dataset_meta') or {}
    return _Model(module.to(device).eval(), pipeline, list(meta.get('classes') or ()), cfg.get('value_range'))


def _name(model: _Model, label: int) -> str:
    return str(model.classes[label]) if label < len(model.classes) else str(label)


@torch.no_grad()
def _each(model: _Model, images: Iterable[Image]):
    for image in as_list(images):
        pixels = as_bgr(image, model.value_range)
        packed = model.pipeline(
            dict(img=pixels, img_path=None, img_id=0, img_shape=pixels.shape[:2], ori_shape=pixels.shape[:2])
        )
        (found,) = model.module.test_step(dict(inputs=[packed['inputs']], data_samples=[packed['data_samples']]))
        yield found


def predict(
    checkpoint: str | os.PathLike,
    images: Image | Iterable[Image],
    config: str | os.PathLike | Config | None = None,
    *,
    top: int = 5,
    device: str | torch.device = 'cpu',
) -> list[Prediction]:
    """Classes of images by a fine-tuned model or a linear probe.

    Args:
        checkpoint: a file or the work dir of a run.
        config: if the checkpoint does not carry the one that it was trained with.
        top: how many classes of each image.

    Raises:
        LoadError: no classifier, or not all of it. ValueError, UnreadableImage: an image that is none.
    """
    model = _load(checkpoint, config, device, 'classifier')
    found = []
    for sample in _each(model, images):
        scores, labels = sample.pred_score.cpu().sort(descending=True, stable=True)
        labels = labels[:top].tolist()
        found.append(Prediction([_name(model, label) for label in labels], labels, scores[:top].tolist()))
    return found


def detect(
    checkpoint: str | os.PathLike,
    images: Image | Iterable[Image],
    config: str | os.PathLike | Config | None = None,
    *,
    above: float = 0.3,
    device: str | torch.device = 'cpu',
) -> list[Detection]:
    """Objects in images by a trained detector.

    Args:
        checkpoint, config: as of :func:`predict`.
        above: least score of an object.

    Raises:
        LoadError: no detector, or not all of it. ValueError, UnreadableImage: an image that is none.
    """
    model = _load(checkpoint, config, device, 'detector')
    found = []
    for sample in _each(model, images):
        objects = sample.pred_instances.cpu()
        objects = objects[objects.scores > above]
        objects = objects[objects.scores.argsort(descending=True, stable=True)]
        masks = objects.masks.numpy().astype(bool) if 'masks' in objects else None
        names = [_name(model, int(label)) for label in objects.labels]
        arrays = objects.bboxes.numpy(), objects.labels.numpy(), objects.scores.numpy()
        found.append(Detection(*arrays, names, masks))
    return found
