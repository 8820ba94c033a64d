"""The pretraining recipes with models of a few thousand weights, two steps through the Runner."""

import re

import torch
from built_recipes import load
from mmengine.runner import Runner
from tiny_run import SHRINK, TINY_ARCH

TINY_SWIN = dict(embed_dims=16, depths=[1, 1, 1, 1], num_heads=[2, 2, 2, 2])


def parts_of_name(path):
    """``(family, method, backbone, size, epochs)`` that a file name promises."""
    name = re.fullmatch(r'(?:(sbam|amr)_)?(mae|emae|simmim|bootmae|cmae)_(vit|swin)([bl])_(\d+)e', path.stem)
    assert name, path.stem
    return name[1], name[2], name[3], name[4], int(name[5])


def shrunken(path):
    """The recipe with a model of a few thousand weights: 4 x 4 patches or units, one step an epoch, one random."""
    cfg = load(path)
    _, method, backbone, _, _ = parts_of_name(path)
    size = 64 if backbone == 'swin' else 32
    has_decoder = method not in ('simmim', 'bootmae')
    options = {k: v for k, v in SHRINK.items() if has_decoder or not k.startswith('model.decoder')}
    options |= {'model.backbone.img_size': size, 'train_dataloader.dataset.pipeline.1.scale': size}
    if backbone == 'swin':
        options.pop('model.backbone.patch_size')
        options['model.backbone.stage_cfgs.block_cfgs.window_size'] = 2
    if method == 'cmae':
        options |= {'model.mask_unit': None, 'model.feature_decoder.embed_dims': 32}
        options |= {'model.feature_decoder.num_heads': 2, 'train_dataloader.dataset.pipeline.1.scale': size + 32}
        options['train_dataloader.dataset.pipeline.3.size'] = size
    if method == 'simmim':
        options['model.mask_unit'] = size // 4
    if method == 'bootmae':
        options['model.decoder_dims'] = 24
    if 'random_epochs' in cfg.model.masker:
        options |= {'model.masker.random_epochs': 1, 'custom_hooks.0.interval': 1}
    cfg.merge_from_dict(options)
    cfg.model.backbone.arch = dict(TINY_SWIN if backbone == 'swin' else TINY_ARCH)
    return cfg


def run_two_steps(cfg, image_folder, tmp_path, name):
    """Through mmengine's Runner and every hook of the recipe, one step an epoch."""
    cfg.merge_from_dict({
        'train_dataloader.dataset.data_root': str(image_folder),
        'train_dataloader.dataset.data_prefix': '',
        'train_dataloader.batch_size': 8,
        'train_cfg.max_epochs': 2,
        'work_dir': str(tmp_path),
    })  # fmt: skip
    for scheduler in cfg.param_scheduler:
        scheduler.begin, scheduler.end = 0, 2
    cfg.experiment_name = name
    cfg.log_level = 'ERROR'
    runner = Runner.from_cfg(cfg)
    before = {name: p.detach().clone() for name, p in runner.model.named_parameters()}
    runner.train()
    assert runner.iter == 2
    return runner.model, {name for name, p in runner.model.named_parameters() if not torch.equal(before[name], p)}
