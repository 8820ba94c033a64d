"""The text of the segmentation config that ``tools/transfer.py --images --masks`` writes."""

from __future__ import annotations

import math
from typing import Any

from mmengine.config import Config

from mim_mm.data.mask_files import MaskSet
from mim_mm.transfer.chain import ChainError, find_file
from mim_mm.transfer.own.own_configs import HERE, LEAST_STEPS, Code, _text
from mim_mm.transfer.own.own_encoder import Encoder, recipe_config

ADE20K_IMAGES = 20210  # that the recipe's iterations are counted on
BATCH = (2, 4)  # images a device: the pooled branch of UperNet normalises one value an image, so one is too few


def segmentation_text(encoder: Encoder, masks: MaskSet, channels: int, stats, gpus: int) -> str:
    """UperNet on own masks: as many epochs of their images as the recipe has of ADE20K.

    Raises:
        ChainError: more than three channels, too few images, or an encoder whose depth four does not divide.
    """
    if channels not in (1, 3):
        raise ChainError(
            f'--masks with --channels {channels}: mmseg reads images of 1 or 3 channels; leave --masks out'
        )
    if encoder.depth < 4:
        raise ChainError(f'--masks reads maps of four blocks, this encoder has {encoder.depth}; leave --masks out')
    count, gpus = len(masks.train), max(1, gpus)
    batch = min(BATCH[1], count // gpus)
    if batch < BATCH[0]:
        raise ChainError(
            f'--masks: {count} training images on {gpus} device(s); {BATCH[0]} a device are needed (BatchNorm)'
        )
    base = str(find_file(f'configs/{encoder.recipes()["segment"]}.py', 'segment'))
    recipe = recipe_config(base)
    size = round(512 * encoder.shrink / encoder.patch_size) * encoder.patch_size
    settings: dict[str, Any] = dict(
        metainfo=dict(classes=masks.classes), model=_model(encoder, recipe, masks, channels, stats, size)
    )
    load = dict(type='mim_mm.LoadMask', values=masks.values, ignored=masks.ignored)
    for part, name in (('train', 'train_pipeline'), ('val', 'test_pipeline')):
        settings[name] = [
            _step(step.to_dict(), load, channels, size)
            for step in recipe[name]
            if channels == 3 or step.type != 'PhotoMetricDistortion'  # colours
        ]
        dataset = dict(
            type='mim_mm.MaskPairs',
            data_root=masks.root,
            ann_file=f'{HERE}/masks_{part}.txt',
            data_prefix=dict(img_path='images', seg_map_path=masks.train[0][1].split('/')[0]),
            metainfo=Code('metainfo'),
            pipeline=Code(name),
            test_mode=part == 'val',
        )
        settings[f'{part}_dataloader'] = dict(dataset=dict(_delete_=True, **dataset))
    settings['train_dataloader']['batch_size'] = batch
    settings['test_dataloader'] = Code('val_dataloader')
    settings.update(_duration(recipe, count, batch * gpus))
    settings['auto_scale_lr'] = dict(enable=True)
    return _text(f'UperNet on {count:,} images of {len(masks.classes)} classes.', base, settings)


def _model(encoder: Encoder, recipe: Config, masks: MaskSet, channels: int, stats, size: int) -> dict[str, Any]:
    backbone = dict(encoder.settings('segment', channels), img_size=size)
    depth = encoder.depth
    if depth != recipe.model.backbone.out_indices[-1] + 1:
        backbone['out_indices'] = tuple(depth * (i + 1) // 4 - 1 for i in range(4))
    if encoder.kind == 'BEiTPretrainViT':  # positions are biases of attention alone
        backbone['use_abs_pos_emb'] = False
    number = len(masks.classes)
    mean, std = stats if channels != 3 else (encoder.mean, encoder.std)
    norm = dict(mean=mean, std=std, bgr_to_rgb=channels == 3) if mean else {}
    return dict(
        data_preprocessor=dict(size=(size, size), test_cfg=dict(size=(size, size)), **norm),
        backbone=backbone,
        neck=dict(embed_dim=encoder.width),
        decode_head=dict(in_channels=[encoder.width] * 4, channels=encoder.width, num_classes=number),
        auxiliary_head=dict(in_channels=encoder.width, num_classes=number),
        test_cfg=dict(crop_size=(size, size), stride=(size * 2 // 3,) * 2),
    )


def _step(step: dict[str, Any], load: dict[str, Any], channels: int, size: int) -> dict[str, Any]:
    """A transform of the recipe for these masks and this size of images."""
    if step['type'] == 'LoadAnnotations':
        return dict(load)
    if step['type'] == 'LoadImageFromFile' and channels == 1:
        step['color_type'] = 'grayscale'
    if 'crop_size' in step:
        step['crop_size'] = (size, size)
    if 'scale' in step:
        step['scale'] = (4 * size, size)
    return step


def _duration(recipe: Config, count: int, batch: int) -> dict[str, Any]:
    """As many epochs as the recipe has of ADE20K, at least ``LEAST_STEPS`` steps."""
    epochs = recipe.train_cfg.max_iters * recipe.auto_scale_lr.base_batch_size / ADE20K_IMAGES
    iters = max(LEAST_STEPS, math.ceil(epochs * count / batch))
    interval = max(1, iters // 10)
    schedule = [scheduler.to_dict() for scheduler in recipe.param_scheduler]
    warmup = min(schedule[0]['end'], max(1, iters // 20))
    schedule[0]['end'] = schedule[1]['begin'] = warmup
    return dict(
        train_cfg=dict(max_iters=iters, val_interval=interval),
        default_hooks=dict(checkpoint=dict(interval=interval)),
        param_scheduler=schedule,
    )
