"""Predictions of a trained detector on images of its test set, with the truth beside them: arrays for a figure."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope

from mim_mm.checkpoint.read import LoadError, read_checkpoint
from mim_mm.data.decode import read_image

__all__ = ['choose_images', 'detect_scenes', 'load_weights']


def choose_images(dataset, files: list, limit: int) -> list[int]:
    """Places in a test set of ``files`` (names), or its first ``limit``.

    Raises:
        ValueError: a file is not in it.
    """
    names = [Path(dataset.get_data_info(i)['img_path']).name for i in range(len(dataset))]
    if not files:
        return list(range(min(limit, len(names))))
    missing = [str(f) for f in files if Path(f).name not in names]
    if missing:
        raise ValueError(
            f'{missing[0]} is not in the test set of this config ({dataset.ann_file}), so there is no truth to draw; '
            f'it has {len(names)} images, such as {names[0]}'
        )
    return [names.index(Path(f).name) for f in files]


def load_weights(model, checkpoint: str | Path) -> None:
    """Fill a model with its whole checkpoint, for evaluation.

    Raises:
        LoadError, ValueError: it cannot be read, or does not fit.
    """
    try:
        model.load_state_dict(read_checkpoint(checkpoint), strict=True)
    except LoadError:
        raise
    except RuntimeError as error:
        raise ValueError(f'{checkpoint} does not fit the config: {str(error)[:400]}') from error
    model.eval()


def _instances(instances, masks: np.ndarray, scores=None) -> list[dict]:
    boxes = instances.bboxes
    boxes = (boxes.tensor if hasattr(boxes, 'tensor') else boxes).numpy()
    scores = [None] * len(boxes) if scores is None else scores.tolist()
    return [
        dict(label=int(label), box=box, mask=mask.astype(bool), score=score)
        for label, box, mask, score in zip(instances.labels, boxes, masks, scores)
    ]


@torch.no_grad()
def detect_scenes(
    config: str | Path, checkpoint: str | Path, files: list = (), limit: int = 6, above: float = 0.5
) -> dict:
    """Run a detector with masks on ``files`` (names in its test set), or on the first ``limit`` images of it.

    Returns:
        ``{'classes': names, 'scenes': [{'image' (H, W, 3) uint8 RGB, 'found': [...], 'truth': [...]}]}``; each instance
        is a dict of ``label``, ``box`` (x1, y1, x2, y2), ``mask`` (H, W) bool and ``score`` (None for the truth). Found
        instances below the score ``above`` are left out.
    """
    from mmdet.registry import DATASETS, MODELS  # here: importing the room must not need mmdet

    cfg = Config.fromfile(str(config))
    init_default_scope(cfg.get('default_scope', 'mmdet'))
    # What training evaluates on; test_dataloader is a copy that --cfg-options val_dataloader... leaves behind.
    dataset = DATASETS.build((cfg.get('val_dataloader') or cfg.test_dataloader).dataset)
    chosen = choose_images(dataset, list(files), limit)
    model = MODELS.build(cfg.model)
    load_weights(model, checkpoint)
    scenes = []
    for index in chosen:
        item = dataset[index]
        truth = item['data_samples'].gt_instances
        found = model.test_step(dict(inputs=[item['inputs']], data_samples=[item['data_samples']]))[0].pred_instances
        found = found[found.scores > above]
        # Truth and predictions are in the coordinates of the file, whatever size the model saw.
        path = item['data_samples'].img_path
        image = read_image(path, cfg.get('value_range'))[..., ::-1]
        truth_masks = truth.masks.to_ndarray()
        if truth_masks.shape[1:] != image.shape[:2]:
            raise ValueError(
                f'{path} is {image.shape[:2]}, its truth {truth_masks.shape[1:]}: the val pipeline scales the '
                'annotations; put LoadAnnotations behind Resize, as mmdet does'
            )
        scenes.append(
            dict(
                image=image,
                found=_instances(found, found.masks.numpy(), found.scores),
                truth=_instances(truth, truth_masks),
            )
        )
    return dict(classes=list(dataset.metainfo['classes']), scenes=scenes)
