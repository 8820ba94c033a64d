"""A whole pretraining run on a handful of tiny images, through mmengine's Runner and our recipes."""

from pathlib import Path

from built_recipes import load
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mim_mm.checkpoint.atomic import latest_checkpoint

ROOT = Path(__file__).resolve().parents[2]

# What turns a ViT-B recipe into a small model on 32-px images, as --cfg-options.
SHRINK = {
    'model.backbone.arch': 'deit-tiny',
    'model.backbone.img_size': 32,
    'model.backbone.patch_size': 8,
    'model.decoder.embed_dims': 32,
    'model.decoder.depth': 1,
    'model.decoder.num_heads': 2,
    'train_dataloader.dataset.pipeline.1.scale': 32,
    'train_dataloader.batch_size': 4,
    'train_dataloader.num_workers': 0,
    'train_dataloader.persistent_workers': False,
    'train_dataloader.pin_memory': False,
    'default_hooks.logger.interval': 1,
    'default_hooks.checkpoint.interval': 1,
}


TINY_ARCH = dict(embed_dims=32, num_layers=2, num_heads=2, feedforward_channels=64)


def shrunken(recipe='configs/emae/emae_vitb_800e.py', **options):
    """A recipe of the repository at test size."""
    cfg = load(ROOT / recipe)
    cfg.merge_from_dict({**SHRINK, **options})
    cfg.model.backbone.arch = dict(TINY_ARCH)
    return cfg


def as_words(options):
    """The same as words of a command line."""
    return [f'{key}={value}' for key, value in options.items()]


class Killed(Exception):
    pass


class StopHook(Hook):
    """Ends a run after some epochs as a kill would: no hook of the end runs."""

    def __init__(self, epochs):
        self.epochs = epochs

    def after_train_epoch(self, runner):
        if runner.epoch + 1 == self.epochs:
            raise Killed


def train(image_folder, work_dir, epochs, stop_after=None, resume=False):
    """Pretrain EMAE; ``stop_after`` ends after that many epochs of the full schedule, as a kill would."""
    cfg = shrunken(**{
        'train_dataloader.dataset.data_root': str(image_folder),
        'train_dataloader.dataset.data_prefix': '',
        'train_dataloader.dataset.pipeline.2.prob': 0.0,
        'train_cfg.max_epochs': epochs,
        'param_scheduler.0.end': 1,
        'param_scheduler.1.begin': 1,
        'work_dir': str(work_dir),
        'resume': resume,
        'load_from': str(latest_checkpoint(work_dir)) if resume else None,
    })  # fmt: skip
    cfg.experiment_name = f'{Path(work_dir).name}-{epochs}-{stop_after}-{resume}'
    # Without random augmentation: its random state is the worker's, which starts anew when a run is resumed.
    cfg.train_dataloader.dataset.pipeline[:2] = [dict(type='LoadImageFromFile'), dict(type='Resize', scale=(32, 32))]
    runner = Runner.from_cfg(cfg)
    if stop_after:
        runner.register_hook(StopHook(stop_after), 'LOWEST')
    try:
        runner.train()
    except Killed:
        pass
    return runner
