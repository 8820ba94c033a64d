"""Predicted classes of a trained segmentation model on images of its test set, with the truth: arrays for a figure."""

from __future__ import annotations

from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope

from mim_mm.data.decode import read_image
from mim_mm.evaluation.pictures.detections import choose_images, load_weights

__all__ = ['segment_scenes']


@torch.no_grad()
def segment_scenes(config: str | Path, checkpoint: str | Path, files: list = (), limit: int = 6) -> dict:
    """Run a segmentation model on ``files`` (names in its test set), or on the first ``limit`` images of it.

    Returns:
        ``{'classes': names, 'scenes': [{'image' (H, W, 3) uint8 RGB, 'found' (H, W) labels, 'truth' (H, W) labels}]}``;
        255 in the truth is what is not labelled.

    Raises:
        ValueError: a file is not in the test set, or the checkpoint does not fit.
    """
    from mmseg.registry import DATASETS, MODELS  # an extra

    cfg = Config.fromfile(str(config))
    init_default_scope(cfg.get('default_scope', 'mmseg'))
    dataset = DATASETS.build((cfg.get('val_dataloader') or cfg.test_dataloader).dataset)
    model = MODELS.build(cfg.model)
    load_weights(model, checkpoint)
    scenes = []
    for index in choose_images(dataset, list(files), limit):
        item = dataset[index]
        batch = dict(inputs=[item['inputs']], data_samples=[item['data_samples']])
        found = model.test_step(batch)[0].pred_sem_seg.data[0].cpu().numpy()
        image = read_image(item['data_samples'].img_path, cfg.get('value_range'))[..., ::-1]
        truth = item['data_samples'].gt_sem_seg.data[0].numpy()
        if not image.shape[:2] == found.shape == truth.shape:
            raise ValueError(
                f'{item["data_samples"].img_path} is {image.shape[:2]}, its truth {truth.shape}, what was found '
                f'{found.shape}: put LoadAnnotations behind Resize in the val pipeline'
            )
        scenes.append(dict(image=image, found=found, truth=truth))
    return dict(classes=list(dataset.metainfo['classes']), scenes=scenes)
