"""Recipes of methods that compare views, MoCo v3 and MSN, at test size: views of 32 px, small ones of 16 px."""

import torch
from built_recipes import load
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from tiny import VIT
from tiny_run import Killed, StopHook

from mim_mm.checkpoint.atomic import latest_checkpoint
from mim_mm.registry import MODELS

SMALL = {
    'model.backbone.img_size': 32,
    'model.backbone.patch_size': 8,
    'model.hidden_dims': 24,
    'model.out_dims': 16,
    'train_dataloader.batch_size': 4,
    'train_dataloader.num_workers': 0,
    'train_dataloader.persistent_workers': False,
    'train_dataloader.pin_memory': False,
    'optim_wrapper.on_cpu': False,
    'default_hooks.logger.interval': 1,
    'default_hooks.checkpoint.interval': 1,
    'custom_hooks.0.interval': 1,
}


def shrunken_views(recipe, **options):
    """A recipe of configs/ with a model of a few thousand weights."""
    cfg = load(recipe)
    cfg.merge_from_dict({**SMALL, **options})
    cfg.model.backbone.arch = dict(VIT['arch'])
    cfg.optim_wrapper.optimizer.pop('fused')
    for view in cfg.train_dataloader.dataset.pipeline[1].views:
        view.update(scale=32 if view.scale == 224 else 16, num=min(2, view.get('num', 1)))
    return cfg


def moved_off_its_start(model, seed=0):
    """Nothing at 0 or 1, and a teacher that is not the student; ready to train."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    for teacher in model.teachers:
        teacher.settled = True
    return model.train()


def build_small(recipe, seed=0, **options):
    torch.manual_seed(seed)
    cfg = shrunken_views(recipe, **options)
    return moved_off_its_start(MODELS.build(cfg.model), seed)


def optimizer_of(model, cfg):
    """The optimizer wrapper of a recipe, for a model that is there."""
    init_default_scope(cfg.default_scope)
    return build_optim_wrapper(model, cfg.optim_wrapper)


def run_recipe(cfg, image_folder, work_dir, name, stop=None, resume=False, epochs=2):
    """Through mmengine's Runner with every hook of the recipe; ``stop``: ends after so many epochs as a kill would."""
    cfg.merge_from_dict({
        'train_dataloader.dataset.data_root': str(image_folder), 'train_dataloader.dataset.data_prefix': '',
        'train_cfg.max_epochs': epochs, 'param_scheduler.0.end': 1, 'param_scheduler.1.begin': 1,
        'work_dir': str(work_dir), 'resume': resume,
        'load_from': str(latest_checkpoint(work_dir)) if resume else None,
    })  # fmt: skip
    cfg.experiment_name, cfg.log_level = name, 'ERROR'
    runner = Runner.from_cfg(cfg)
    if stop:
        runner.register_hook(StopHook(stop), 'LOWEST')
    try:
        runner.train()
    except Killed:
        pass
    return runner
