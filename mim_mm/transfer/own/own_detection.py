"""The text of the detection config that ``tools/transfer.py --images --boxes`` writes."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

from mmengine.config import Config

from mim_mm.transfer.chain import ChainError, find_file
from mim_mm.transfer.own.own_configs import Code, _text
from mim_mm.transfer.own.own_encoder import Encoder, recipe_config

WINDOW = 16  # tokens: a side of the input is a multiple of it


@dataclass(frozen=True)
class Boxes:
    """Detection data: annotation files (absolute, or beside the config), image folders, classes in order of label."""

    train_file: str
    val_file: str
    train_images: str
    val_images: str
    classes: tuple[str, ...]
    masks: bool
    count: int


def detection_text(encoder: Encoder, data: Boxes, channels: int, stats, gpus: int) -> str:
    """Mask R-CNN, or without masks Faster R-CNN, on COCO-format data: as many epochs of its images as the recipe.

    Raises:
        ChainError: there is no recipe for the encoder, or more than three channels.
    """
    _check(encoder, channels)
    base = str(find_file(f'configs/{encoder.recipes()["detect"]}.py', 'detect'))
    recipe = recipe_config(base)
    batch = max(1, min(recipe.train_dataloader.batch_size, data.count // max(1, gpus)))
    settings: dict[str, Any] = dict(
        metainfo=dict(classes=data.classes), model=_model(encoder, recipe, data, channels, stats)
    )
    for part, file, images in (('train', data.train_file, data.train_images), ('val', data.val_file, data.val_images)):
        name = 'train_pipeline' if part == 'train' else 'test_pipeline'
        steps = [step.to_dict() for step in recipe[name]]
        settings[name] = [_step(step, data.masks, channels, encoder, recipe) for step in steps]
        root, folder = images.rstrip('/').rsplit('/', 1)
        dataset = dict(
            data_root=root or '/', ann_file=file, data_prefix=dict(img=f'{folder}/'), metainfo=Code('metainfo')
        )
        settings[f'{part}_dataloader'] = dict(dataset=dict(dataset, pipeline=Code(name)))
    settings['train_dataloader']['batch_size'] = batch
    settings['test_dataloader'] = Code('val_dataloader')
    settings['val_evaluator'] = dict(ann_file=data.val_file, metric=['bbox', 'segm'] if data.masks else 'bbox')
    settings['test_evaluator'] = Code('val_evaluator')
    epochs = int(re.search(r'_(\d+)e$', encoder.recipes()['detect'])[1])
    settings.update(_duration(recipe, epochs, data.count, batch * max(1, gpus)))
    settings['auto_scale_lr'] = dict(enable=True)
    what = 'Mask R-CNN' if data.masks else 'Faster R-CNN (the annotations have no masks)'
    return _text(f'{what} on {data.count:,} images of {len(data.classes)} classes.', base, settings)


def _check(encoder: Encoder, channels: int) -> None:
    if channels not in (1, 3):
        raise ChainError(
            f'--boxes with --channels {channels}: mmdet reads images of 1 or 3 channels; leave --boxes out'
        )
    if not encoder.is_vit:
        return
    if encoder.detection_patch % 4:
        raise ChainError(f'--boxes: a patch of {encoder.patch_size} px has no quarter; the pyramid needs one, e.g. 16')
    if encoder.depth < 4 or encoder.depth % 4:
        raise ChainError(
            f'--boxes needs an encoder whose depth four divides (global blocks), this one has {encoder.depth}'
        )


def _model(encoder: Encoder, recipe: Config, data: Boxes, channels: int, stats) -> dict[str, Any]:
    backbone = encoder.settings('detect', channels)
    heads: dict[str, Any] = {name: dict(num_classes=len(data.classes)) for name in ('bbox_head', 'mask_head')}
    if not data.masks:
        heads.update(mask_head=None, mask_roi_extractor=None)
    model = dict(backbone=backbone, neck=dict(in_channels=encoder.width), roi_head=heads)
    if encoder.is_vit:
        if 'out_indices' in recipe.model.backbone:
            backbone['out_indices'] = tuple(encoder.depth * (i + 1) // 4 - 1 for i in range(4))
        if encoder.detection_patch != 16:  # the pyramid's maps are of strides patch / 4 to 4 x patch
            strides = [encoder.detection_patch * 2**i // 4 for i in range(5)]
            model['rpn_head'] = dict(anchor_generator=dict(strides=strides))
            for kind in ('bbox', 'mask') if data.masks else ('bbox',):
                heads[f'{kind}_roi_extractor'] = dict(featmap_strides=strides[:4])
    else:  # the maps of the stages, each of twice the width of the one before
        maps = len(recipe.model.neck.in_channels)
        model['neck'] = dict(in_channels=[encoder.width // 2 ** (maps - 1 - i) for i in range(maps)])
    mean, std = stats if channels != 3 else (encoder.mean, encoder.std)
    if mean:
        model['data_preprocessor'] = dict(mean=mean, std=std, bgr_to_rgb=channels == 3)
    if encoder.shrink != 1 and 'img_size' in recipe.model.backbone:
        side = _side(recipe.model.backbone.img_size, encoder)
        backbone['img_size'] = side
        model.setdefault('data_preprocessor', {})['pad_size_divisor'] = side
    return model


def _side(pixels: int, encoder: Encoder) -> int:
    """Of an input with ``--image-size``: shrunk like the pretraining's, a whole number of windows for a ViT."""
    unit = WINDOW * encoder.detection_patch if encoder.is_vit else 1
    return max(1, round(pixels * encoder.shrink / unit)) * unit


def _step(step: dict[str, Any], masks: bool, channels: int, encoder: Encoder, recipe: Config) -> dict[str, Any]:
    """A transform of the recipe for these annotations and this size of images."""
    if step['type'] == 'LoadImageFromFile' and channels == 1:
        step['color_type'] = 'grayscale'
    for key in ('with_mask', 'by_mask'):
        if key in step and not masks:
            step[key] = False
    if encoder.shrink != 1:
        for key in {'scale', 'scales', 'crop_size'} & set(step):
            step[key] = _shrunk(step[key], encoder)
        if 'transforms' in step:
            step['transforms'] = [
                [_step(dict(inner), masks, channels, encoder, recipe) for inner in branch]
                for branch in step['transforms']
            ]
    return step


def _shrunk(value: Any, encoder: Encoder) -> Any:
    return (
        type(value)(_shrunk(v, encoder) for v in value) if isinstance(value, (list, tuple)) else _side(value, encoder)
    )


def _duration(recipe: Config, epochs: int, count: int, batch: int) -> dict[str, list[Any] | dict[str, Any]]:
    """As many epochs as the recipe has of COCO, in the unit of the recipe."""
    if not recipe.train_cfg.get('by_epoch'):
        iters = math.ceil(epochs * count / batch)
        interval = max(1, iters // 10)
        settings = dict(
            train_cfg=dict(max_iters=iters, val_interval=interval),
            default_hooks=dict(checkpoint=dict(interval=interval)),
        )
        schedule = [scheduler.to_dict() for scheduler in recipe.param_scheduler]
        if any('milestones' in scheduler for scheduler in schedule):  # steps of COCO's iterations
            for scheduler in schedule:
                steps = scheduler.get('milestones')
                if steps:
                    scheduler['milestones'] = [max(1, round(s * iters / recipe.train_cfg.max_iters)) for s in steps]
            settings['param_scheduler'] = schedule
        return settings
    iters = epochs * max(1, count // batch)
    schedule = [scheduler.to_dict() for scheduler in recipe.param_scheduler]
    for scheduler in schedule:
        if not scheduler.get('by_epoch', True) and scheduler.get('end', 0) > iters // 20:
            scheduler['end'] = max(1, iters // 20)  # a warm-up in iterations of COCO
    return dict(param_scheduler=schedule)
