"""The text of the configs that ``tools/transfer.py --images`` writes: small files that inherit from the recipes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Dict, List, Optional, Sequence, Tuple

from mmengine.config import Config

from .chain import ChainError, resolve

HERE = '{{ fileDirname }}'  # mmengine puts the folder of the config here, so a work dir can be moved
# Recipes by mmpretrain's name of the architecture; other sizes inherit from those of ViT-B.
RECIPES = {
    'base': ('vitb', 'linear_90e', 'finetune_100e'),
    'deit-small': ('vits', 'linear_90e', 'finetune_200e'),
    'large': ('vitl', 'linear_50e', 'finetune_50e'),
    'huge': ('vith', 'linear_50e', 'finetune_50e'),
}
SHORT = dict(s='deit-small', b='base', l='large', h='huge')
DETECTION_EPOCHS = 100  # of configs/coco/mask_rcnn_*_fpn_lsj_100e.py
PROBE_EPOCHS, PROBE_ITERS = 10, (500, 12500)  # of configs/linear/vitb_quick_probe.py on ImageNet, and its limits here


class Code(str):
    """Text that stands in a config as it is, e.g. the name of a variable."""


def literal(value: Any, indent: int = 0) -> str:
    """A value as config text: ``dict(a=1)``, broken into lines where it is long."""
    if isinstance(value, Code):
        return str(value)
    inner = ' ' * (indent + 4)
    if isinstance(value, dict) and all(isinstance(k, str) and k.isidentifier() for k in value):
        parts, ends = [f'{k}={literal(v, indent + 4)}' for k, v in value.items()], ('dict(', ')')
    elif isinstance(value, (list, tuple)):
        parts = [literal(v, indent + 4) for v in value]
        ends = ('[', ']') if isinstance(value, list) else ('(', ',)' if len(value) == 1 else ')')
    elif isinstance(value, dict):
        parts, ends = [f'{k!r}: {literal(v, indent + 4)}' for k, v in value.items()], ('{', '}')
    elif isinstance(value, str) and HERE in value:  # the folder's name may have any quotation mark in it
        return f"r'''{value}'''"
    else:
        return repr(value)
    line = ends[0] + ', '.join(parts) + ends[1]
    if len(line) + indent < 110 and '\n' not in line:
        return line
    return ends[0] + '\n' + ''.join(f'{inner}{part},\n' for part in parts) + ' ' * indent + ends[1].lstrip(',')


@dataclass(frozen=True)
class Encoder:
    """What the other stages must know of the pretrained encoder. Sizes in pixels."""

    kind: str
    arch: Any  # a name of mmpretrain's, or a dict
    width: int
    depth: int
    img_size: int
    patch_size: int
    mean: Optional[List[float]]
    std: Optional[List[float]]

    @property
    def is_vit(self) -> bool:
        return self.kind == 'VisionTransformer'

    def arch_setting(self) -> Any:
        return dict(_delete_=True, **self.arch) if isinstance(self.arch, dict) else self.arch

    def recipe(self) -> Tuple[str, str, str]:
        return RECIPES.get(self.arch if isinstance(self.arch, str) else 'base', RECIPES['base'])


def read_method(path: str) -> Tuple[str, Config, Encoder]:
    """A pretraining config: its absolute path, its content, its encoder.

    Raises:
        ChainError: it is no config of a pretraining method.
    """
    file = resolve(path, '--method')
    try:
        cfg = Config.fromfile(str(file))
        backbone = cfg.model.backbone
        loader = cfg.train_dataloader.dataset.pipeline[0].type
    except Exception as error:  # a config is a program: anything can come out of it
        raise ChainError(f'--method {path} is no pretraining config: {type(error).__name__}: {error}') from error
    if not str(loader).endswith('LoadImageFromFile') and not str(loader).endswith('LoadAnyImage'):
        raise ChainError(f'--method {path}: its pipeline begins with {loader}; it must begin with LoadImageFromFile')
    kind, arch = str(backbone.type).split('.')[-1], backbone.get('arch')
    width = depth = 0
    if kind == 'VisionTransformer':
        from mmpretrain.models.backbones import VisionTransformer

        arch = SHORT.get(arch, arch) if isinstance(arch, str) else arch.to_dict()
        settings = arch if isinstance(arch, dict) else VisionTransformer.arch_zoo.get(arch)
        if not settings:
            raise ChainError(f'--method {path}: mmpretrain has no architecture {arch!r}')
        width, depth = settings['embed_dims'], settings['num_layers']
    norm = cfg.model.get('data_preprocessor') or {}
    mean, std = (list(norm[key]) if norm.get(key) else None for key in ('mean', 'std'))
    encoder = Encoder(
        kind, arch, width, depth, backbone.get('img_size', 224), backbone.get('patch_size', 16), mean, std
    )
    return str(file), cfg, encoder


def _text(title: str, base: str, settings: Dict[str, Any]) -> str:
    note = 'Written by tools/transfer.py --images; change it as you like, then run the chain.py above it.'
    head = f'"""{title}\n\n{note}\n"""\n\n'
    return head + f'_base_ = [{base!r}]\n\n' + ''.join(f'{key} = {literal(v)}\n' for key, v in settings.items())


def _loaders_replaced(pipeline: Sequence[Any], load: Dict[str, Any], channels: int) -> List[Any]:
    """The pipeline with another loader, and without what cannot work on images that are not of 3 channels."""
    steps = [load]
    for step in list(pipeline)[1:]:
        step = step.to_dict() if hasattr(step, 'to_dict') else dict(step)
        name = str(step.get('type')).split('.')[-1]
        if channels != 3 and name in ('RandAugment', 'RandomErasing', 'ColorJitter'):
            continue
        if channels not in (1, 3) and step.get('backend') == 'pillow':
            step['backend'] = 'cv2'
        steps.append(step)
    return steps


def pretrain_text(base: str, cfg: Config, channels: int, stats, dataset: Dict[str, Any], batch: int, count: int) -> str:
    """The pretraining stage: the method's recipe on other images.

    Args:
        stats: ``(mean, std)`` of the set where ``channels`` is not 3.
        dataset: arguments of ``mim_mm.OwnImages``.
        batch: images a device.
        count: readable images.

    Raises:
        ChainError: the method cannot take that number of channels.
    """
    load = dict(type='mim_mm.LoadAnyImage', channels=channels, skip_unreadable=True)
    settings: Dict[str, Any] = {}
    if channels != 3:
        kinds = [
            str(cfg.model.backbone.type).split('.')[-1],
            str((cfg.model.get('data_preprocessor') or {}).get('type')),
        ]
        if not kinds[1].endswith('ImgDataPreprocessor') or 'tokenizer' in cfg.model:
            raise ChainError(
                f'--channels {channels}: {cfg.model.type} looks at its images through a network for RGB; use 3'
            )
        key = 'in_chans' if kinds[0] == 'HiViT' else 'in_channels'
        normalizer = dict(
            _delete_=True, type='mim_mm.ChannelNormalizer', mean=stats[0], std=stats[1], non_blocking=True
        )
        settings['model'] = dict(backbone={key: channels}, data_preprocessor=normalizer)
    pipeline = _loaders_replaced(cfg.train_dataloader.dataset.pipeline, load, channels)
    if 'img_size' in cfg.model.backbone and 'tokenizer' not in cfg.model:  # two views of BEiT and CAE: their recipe's
        pipeline = _resized(pipeline, cfg.model.backbone.img_size)
    settings['train_pipeline'] = pipeline
    settings['train_dataloader'] = dict(
        batch_size=batch,
        dataset=dict(_delete_=True, type='mim_mm.OwnImages', **dataset, pipeline=Code('train_pipeline')),
    )
    settings['auto_scale_lr'] = dict(enable=True)  # lr as the recipe's rule has it for this batch
    return _text(f'Pretraining on {count:,} images.', base, settings)


@dataclass(frozen=True)
class Labelled:
    """Classification data: a root, list files beside the config, classes, images for training."""

    root: str
    classes: Tuple[str, ...]
    count: int


def classification_text(stage: str, encoder: Encoder, data: Labelled, channels: int, stats, gpus: int) -> str:
    """``linear``, ``finetune`` or ``quick_probe`` on class folders.

    Raises:
        ChainError: there is no recipe for the encoder.
    """
    size, linear, finetune = encoder.recipe()
    named = dict(
        linear=f'linear/{size}_{linear}', finetune=f'finetune/{size}_{finetune}', quick_probe='linear/vitb_quick_probe'
    )
    base = str(resolve(f'configs/{named[stage]}.py', stage))
    recipe = Config.fromfile(base)
    count, batch = len(data.classes), max(1, min(recipe.train_dataloader.batch_size, data.count // max(1, gpus)))
    backbone = dict(arch=encoder.arch_setting(), img_size=encoder.img_size, patch_size=encoder.patch_size)
    model: Dict[str, Any] = dict(backbone=backbone, head=dict(num_classes=count))
    settings: Dict[str, Any] = dict(metainfo=dict(classes=data.classes), model=model)
    if channels != 3:
        backbone['in_channels'] = channels
    mean, std = stats if channels != 3 else (encoder.mean, encoder.std)
    if 'data_preprocessor' in recipe:  # the recipe's number of classes is ImageNet's
        settings['data_preprocessor'] = dict(num_classes=count, **(dict(mean=mean, std=std) if mean else {}))
    train, test = (
        _resized(_loaders_replaced(p, dict(type='mim_mm.LoadAnyImage', channels=channels), channels), encoder.img_size)
        for p in (recipe.train_pipeline, recipe.test_pipeline)
    )
    settings.update(train_pipeline=train, test_pipeline=test)
    parts = {}
    for part, lists in (('train', 'train'), ('test', 'val')):
        where = dict(data_root=data.root, ann_file=f'{HERE}/{lists}.txt', data_prefix='', metainfo=Code('metainfo'))
        parts[part] = dict(where, pipeline=Code(f'{part}_pipeline'))
    if stage == 'quick_probe':
        model['head']['blocks'] = (1, min(4, encoder.depth))
        held_out = recipe.held_out.to_dict()
        images = dict(type='mim_mm.ProbeImages')
        fit = dict(_delete_=True, **images, part='fit', **held_out, **parts['train'])
        choose = dict(images, part='choose', **held_out, **dict(parts['train'], pipeline=Code('test_pipeline')))
        report = dict(images, part='report', **parts['test'])
        val = dict(_delete_=True, type='ConcatDataset', datasets=[choose, report])
        iters = min(PROBE_ITERS[1], max(PROBE_ITERS[0], math.ceil(PROBE_EPOCHS * data.count / (batch * max(1, gpus)))))
        settings['train_cfg'] = dict(max_iters=iters, val_interval=max(1, iters // 5))
        settings['default_hooks'] = dict(checkpoint=dict(interval=max(1, iters // 5)))
    else:
        model['head']['in_channels'] = encoder.width
        if stage == 'linear':
            model['neck'] = dict(input_features=encoder.width)
            backbone['frozen_stages'] = encoder.depth
        fit, val = (dict(_delete_=True, type='mim_mm.ClassFolders', **parts[part]) for part in ('train', 'test'))
        if count < 5:
            settings.update(val_evaluator=dict(topk=(1,)), test_evaluator=dict(topk=(1,)))
    settings['train_dataloader'] = dict(batch_size=batch, dataset=fit)
    settings['val_dataloader'] = dict(dataset=val)
    settings['test_dataloader'] = Code('val_dataloader')
    settings['auto_scale_lr'] = dict(enable=True)
    return _text(f'{stage} on {data.count:,} images of {count} classes.', base, settings)


def _resized(pipeline: List[Any], size: int) -> List[Any]:
    """The recipe's steps for another input size, with the same share of the image cropped away.

    Raises:
        ChainError: no step is known that gives the images their size; at the recipe's own they would train at another
            resolution than they are tested at.
    """
    found = False
    for step in pipeline:
        name = str(step.get('type')).split('.')[-1]
        if name.endswith('RandomResizedCrop'):  # MAERandomResizedCrop, FastRandomResizedCrop
            step['scale'], found = size, True
        elif name == 'ResizeEdge':
            step['scale'] = round(step['scale'] * size / 224)
        elif name == 'CenterCrop':
            step['crop_size'], found = size, True
    if not found:
        names = [str(step.get('type')) for step in pipeline]
        raise ChainError(f'no step of {names} is a crop that could be set to {size} px; use another recipe')
    return pipeline


@dataclass(frozen=True)
class Boxes:
    """Detection data: annotation files (absolute, or beside the config), image folders, classes in order of label."""

    train_file: str
    val_file: str
    train_images: str
    val_images: str
    classes: Tuple[str, ...]
    masks: bool
    count: int


def detection_text(encoder: Encoder, data: Boxes, channels: int, stats, gpus: int) -> str:
    """Mask R-CNN, or without masks Faster R-CNN, on COCO-format data: 100 epochs of its images, as the recipe.

    Raises:
        ChainError: there is no recipe for the encoder, or more than three channels.
    """
    if channels not in (1, 3):
        raise ChainError(
            f'--boxes with --channels {channels}: mmdet reads images of 1 or 3 channels; leave --boxes out'
        )
    if encoder.patch_size % 4:
        raise ChainError(f'--boxes: a patch of {encoder.patch_size} px has no quarter; the pyramid needs one, e.g. 16')
    if encoder.depth < 4 or encoder.depth % 4:
        raise ChainError(
            f'--boxes needs an encoder whose depth four divides (global blocks), this one has {encoder.depth}'
        )
    size = encoder.recipe()[0]
    base = str(resolve(f'configs/coco/mask_rcnn_{"vitb" if size == "vith" else size}_fpn_lsj_100e.py', 'detect'))
    recipe = Config.fromfile(base)
    batch = max(1, min(recipe.train_dataloader.batch_size, data.count // max(1, gpus)))
    iters = math.ceil(DETECTION_EPOCHS * data.count / (batch * max(1, gpus)))
    backbone = dict(arch=encoder.arch_setting(), patch_size=encoder.patch_size, pretrain_img_size=encoder.img_size)
    backbone['out_indices'] = tuple(encoder.depth * (i + 1) // 4 - 1 for i in range(4))
    heads = {'bbox_head': dict(num_classes=len(data.classes)), 'mask_head': dict(num_classes=len(data.classes))}
    if not data.masks:
        heads.update(mask_head=None, mask_roi_extractor=None)
    model = dict(backbone=backbone, neck=dict(in_channels=encoder.width), roi_head=heads)
    if encoder.patch_size != 16:  # the pyramid's maps are of strides patch / 4 to 4 x patch
        strides = [encoder.patch_size * 2**i // 4 for i in range(5)]
        model['rpn_head'] = dict(anchor_generator=dict(strides=strides))
        for kind in ('bbox', 'mask') if data.masks else ('bbox',):
            heads[f'{kind}_roi_extractor'] = dict(featmap_strides=strides[:4])
    mean, std = stats if channels != 3 else (encoder.mean, encoder.std)
    if mean:
        model['data_preprocessor'] = dict(mean=mean, std=std, bgr_to_rgb=channels == 3)
    if channels != 3:
        backbone['in_channels'] = channels
    settings: Dict[str, Any] = dict(metainfo=dict(classes=data.classes), model=model)
    for part, file, images in (('train', data.train_file, data.train_images), ('val', data.val_file, data.val_images)):
        pipeline = recipe['train_pipeline' if part == 'train' else 'test_pipeline']
        name = 'train_pipeline' if part == 'train' else 'test_pipeline'
        settings[name] = [_box_step(step.to_dict(), data.masks, channels) for step in pipeline]
        root, folder = images.rstrip('/').rsplit('/', 1)
        dataset = dict(
            data_root=root or '/', ann_file=file, data_prefix=dict(img=f'{folder}/'), metainfo=Code('metainfo')
        )
        settings[f'{part}_dataloader'] = dict(dataset=dict(dataset, pipeline=Code(name)))
    settings['train_dataloader']['batch_size'] = batch
    settings['test_dataloader'] = Code('val_dataloader')
    settings['val_evaluator'] = dict(ann_file=data.val_file, metric=['bbox', 'segm'] if data.masks else 'bbox')
    settings['test_evaluator'] = Code('val_evaluator')
    settings['train_cfg'] = dict(max_iters=iters, val_interval=max(1, iters // 10))
    settings['default_hooks'] = dict(checkpoint=dict(interval=max(1, iters // 10)))
    settings['auto_scale_lr'] = dict(enable=True)
    what = 'Mask R-CNN' if data.masks else 'Faster R-CNN (the annotations have no masks)'
    return _text(f'{what} on {data.count:,} images of {len(data.classes)} classes.', base, settings)


def _box_step(step: Dict[str, Any], masks: bool, channels: int) -> Dict[str, Any]:
    if step['type'] == 'LoadImageFromFile' and channels == 1:
        step['color_type'] = 'grayscale'
    for key in ('with_mask', 'by_mask'):
        if key in step and not masks:
            step[key] = False
    return step
