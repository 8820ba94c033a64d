"""The text of the configs that ``tools/transfer.py --images`` writes: small files that inherit from the recipes."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mmengine.config import Config

from mim_mm.transfer.chain import ChainError, find_file
from mim_mm.transfer.own.own_encoder import Encoder, image_size_of, recipe_config, where_size_is

HERE = '{{ fileDirname }}'  # mmengine puts the folder of the config here, so a work dir can be moved
HERE_PATH = re.compile(re.escape(HERE) + r'[\w./ -]*')  # what this package makes of it
PROBE_EPOCHS, PROBE_ITERS = 10, (500, 12500)  # of configs/linear/vitb_quick_probe.py on ImageNet, and its limits here
LEAST_STEPS, LEAST_BATCH = 500, 128  # of the linear probe and fine-tuning; see _enough_steps


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
        parts, ends = [f'{literal(k)}: {literal(v, indent + 4)}' for k, v in value.items()], ('{', '}')
    elif isinstance(value, str) and HERE_PATH.fullmatch(value):  # the folder's name may have any quotation mark in it
        return f"r'''{value}'''"
    elif isinstance(value, str):  # a class may be called as anything: mmengine fills in {{ }} before Python reads it
        return repr(value).replace('{{', '{\\x7b')
    else:
        return repr(value)
    line = ends[0] + ', '.join(parts) + ends[1]
    if len(line) + indent < 110 and '\n' not in line:
        return line
    return ends[0] + '\n' + ''.join(f'{inner}{part},\n' for part in parts) + ' ' * indent + ends[1].lstrip(',')


def _text(title: str, base: str, settings: dict[str, Any]) -> str:
    note = 'Written by tools/transfer.py --images; change it as you like, then run the chain.py above it.'
    head = f'"""{title}\n\n{note}\n"""\n\n'
    return head + f'_base_ = [{base!r}]\n\n' + ''.join(f'{key} = {literal(v)}\n' for key, v in settings.items())


def _loaders_replaced(pipeline: Sequence[Any], load: dict[str, Any], channels: int) -> list[Any]:
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


def pretrain_text(
    base: str,
    cfg: Config,
    encoder: Encoder,
    channels: int,
    stats,
    dataset: dict[str, Any],
    batch: int,
    count: int,
    gpus: int,
) -> str:
    """The pretraining stage: the method's recipe on other images.

    Args:
        cfg, encoder: of :func:`read_method`.
        stats: ``(mean, std)`` of the set where ``channels`` is not 3.
        dataset: arguments of ``mim_mm.OwnImages``.
        batch: images a device.
        count: readable images.
        gpus: on one process the model is not sharded.

    Raises:
        ChainError: the method cannot take that number of channels.
    """
    load = dict(type='mim_mm.LoadAnyImage', channels=channels, skip_unreadable=True)
    settings: dict[str, Any] = {}
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
    if 'img_size' in where_size_is(cfg):
        pipeline = _resized(pipeline, image_size_of(cfg))
    if encoder.shrink != 1:
        model = settings.setdefault('model', {})
        (model if encoder.is_conv else model.setdefault('backbone', {}))['img_size'] = encoder.img_size
        if any('ProgressiveResolutionHook' in str(hook.get('type')) for hook in cfg.get('custom_hooks') or ()):
            settings['custom_hooks'] = [hook.to_dict() for hook in cfg.custom_hooks]
    if cfg.get('strategy') and gpus <= 1:  # FSDP needs processes to share with
        settings.update(strategy=None, runner_type=None)
    settings['train_pipeline'] = pipeline
    settings['train_dataloader'] = dict(
        batch_size=batch,
        dataset=dict(_delete_=True, type='mim_mm.OwnImages', **dataset, pipeline=Code('train_pipeline')),
    )
    accumulated = (cfg.get('optim_wrapper') or {}).get('accumulative_counts', 1)
    whole = max(1, count // (batch * gpus))
    if whole < accumulated:  # else a step would take more than the set
        settings['optim_wrapper'] = dict(accumulative_counts=whole)
    settings['auto_scale_lr'] = dict(enable=True)  # lr as the recipe's rule has it for this batch
    return _text(f'Pretraining on {count:,} images.', base, settings)


@dataclass(frozen=True)
class Labelled:
    """Classification data: a root, list files beside the config, classes, images for training."""

    root: str
    classes: tuple[str, ...]
    count: int


def classification_text(stage: str, encoder: Encoder, data: Labelled, channels: int, stats, gpus: int) -> str:
    """``linear``, ``finetune`` or ``quick_probe`` on class folders.

    Raises:
        ChainError: there is no recipe for the encoder.
    """
    base = str(find_file(f'configs/{encoder.recipes()[stage]}.py', stage))
    recipe = recipe_config(base)
    count, batch = len(data.classes), max(1, min(recipe.train_dataloader.batch_size, data.count // max(1, gpus)))
    backbone = encoder.settings(stage, channels)
    model: dict[str, Any] = dict(backbone=backbone, head=dict(num_classes=count))
    settings: dict[str, Any] = dict(metainfo=dict(classes=data.classes), model=model)
    mean, std = stats if channels != 3 else (encoder.mean, encoder.std)
    if 'data_preprocessor' in recipe:  # the recipe's number of classes is ImageNet's
        settings['data_preprocessor'] = dict(num_classes=count, **(dict(mean=mean, std=std) if mean else {}))
    load, size = dict(type='mim_mm.LoadAnyImage', channels=channels), encoder.size_of(stage)
    train, test = (
        _resized(_loaders_replaced(p, load, channels), size)
        for p in (recipe.train_dataloader.dataset.pipeline, recipe.test_pipeline)
    )
    settings.update(train_pipeline=train, test_pipeline=test)
    parts = {}
    for part, lists in (('train', 'train'), ('test', 'val')):
        where = dict(data_root=data.root, ann_file=f'{HERE}/{lists}.txt', data_prefix='', metainfo=Code('metainfo'))
        parts[part] = dict(where, pipeline=Code(f'{part}_pipeline'))
    if stage == 'quick_probe':
        model['head']['blocks'] = (1, min(4, encoder.depth))
        if encoder.kind == 'HiViT':  # no class token
            model['head']['pooling'] = ('mean',)
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
        batch = _enough_steps(recipe, data.count, batch, max(1, gpus), settings)
        _fit_width(stage, encoder, recipe, model)
        fit, val = (dict(_delete_=True, type='mim_mm.ClassFolders', **parts[part]) for part in ('train', 'test'))
        evaluator = dict(type='mim_mm.ClassAccuracy', **(dict(topk=(1,)) if count < 5 else {}))
        settings.update(val_evaluator=evaluator, test_evaluator=Code('val_evaluator'))
    settings['train_dataloader'] = dict(batch_size=batch, dataset=fit)
    settings['val_dataloader'] = dict(dataset=val)
    settings['test_dataloader'] = Code('val_dataloader')
    settings['auto_scale_lr'] = dict(enable=True)
    return _text(f'{stage} on {data.count:,} images of {count} classes.', base, settings)


def _fit_width(stage: str, encoder: Encoder, recipe: Config, model: dict[str, Any]) -> None:
    """Width and depth of the encoder where head, neck and probe state them."""
    twice = stage == 'linear' and recipe.model.get('pool') == 'cls_mean'
    model['head']['in_channels'] = encoder.width * (2 if twice else 1)
    if stage != 'linear':
        return
    if recipe.model.get('neck'):
        model['neck'] = dict(input_features=encoder.width)
    if recipe.model.backbone.get('frozen_stages') is not None:
        model['backbone']['frozen_stages'] = encoder.depth
    if recipe.model.get('blocks'):  # BEiT's probe reads block 8 of 12
        model['blocks'] = [block * encoder.depth // 12 if block > 0 else block for block in recipe.model.blocks]


def _enough_steps(recipe: Config, count: int, batch: int, gpus: int, settings: dict[str, Any]) -> int:
    """At least ``LEAST_STEPS`` optimizer steps, as the quick probe has: smaller batches, then more epochs.

    The recipes count epochs of ImageNet; 90 epochs of 600 images in one batch each are 90 steps, which leave a linear
    probe at little more than half of what a quick probe of the same features says.

    Args:
        count: images.
        batch: the largest, images a device.
        settings: get duration, schedule and intervals if the recipe's do not do.

    Returns:
        Images a device.
    """
    epochs = recipe.train_cfg.max_epochs
    if epochs * (count // (batch * gpus)) < LEAST_STEPS:
        batch = min(batch, max(LEAST_BATCH, epochs * count // (LEAST_STEPS * gpus)))
    needed = math.ceil(LEAST_STEPS / max(1, count // (batch * gpus)))
    if needed > epochs:
        interval = math.ceil(needed / epochs)
        settings['train_cfg'] = dict(max_epochs=needed, val_interval=interval)
        settings['default_hooks'] = dict(checkpoint=dict(interval=interval))
        schedule = [scheduler.to_dict() for scheduler in recipe.param_scheduler]
        for scheduler in schedule:
            for key in {'begin', 'end'} & set(scheduler):
                scheduler[key] = round(scheduler[key] * needed / epochs)
        settings['param_scheduler'] = schedule
    return batch


def _resized(pipeline: list[Any], size: int) -> list[Any]:
    """The recipe's steps for another input size, with the same share of the image cropped away.

    Raises:
        ChainError: no step is known that gives the images their size; at the recipe's own they would train at another
            resolution than they are tested at.
    """
    found = False
    # A window of CMAE is a little smaller than the crop that it is cut from.
    window = next((s['size'] for s in pipeline if str(s.get('type')).endswith('ShiftedViews')), None)
    for step in pipeline:
        name = str(step.get('type')).split('.')[-1]
        if name.endswith('RandomResizedCrop'):  # MAERandomResizedCrop, FastRandomResizedCrop
            if 'second_scale' in step:  # BEiT's and CAE's two views, the second one for the tokenizer
                step['second_scale'] = step['second_scale'] * size // step['scale']
            step['scale'], found = (-(-step['scale'] * size // window) if window else size), True
        elif name == 'ShiftedViews':
            views = [dict(view, shift=view.get('shift', 0) * size // window) for view in step['views']]
            step.update(size=size, views=views)
        elif name == 'MultiCrop':  # local views in the proportion to the first, in whole patches of 16 px
            first = step['views'][0]['scale']
            sides = [max(16, view['scale'] * size // first // 16 * 16) for view in step['views']]
            views = [dict(v, scale=size if v['scale'] == first else s) for v, s in zip(step['views'], sides)]
            step['views'], found = views, True
        elif name == 'ResizeEdge':
            step['scale'] = round(step['scale'] * size / 224)
        elif name == 'CenterCrop':
            step['crop_size'], found = size, True
        elif name.endswith('WithTwoPic'):  # mmpretrain's two views
            step['second_size'] = step['second_size'] * size // step['size']
            step['size'], found = size, True
    if not found:
        names = [str(step.get('type')) for step in pipeline]
        raise ChainError(f'no step of {names} is a crop that could be set to {size} px; use another recipe')
    return pipeline
