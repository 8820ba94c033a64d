"""What tests/engine/test_fsdp.py compares, in one job of two gloo processes: fsdp_job.py IMAGES START OUT."""

import json
import sys
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.dist import get_rank
from mmengine.registry import RUNNERS
from mmengine.runner import Runner
from tiny_run import ROOT, TINY_ARCH, Killed, StopHook, shrunken
from yapf.yapflib import yapf_api

from mim_mm import files
from mim_mm.algorithms.mae import MAE
from mim_mm.algorithms.teacher import Teacher, frozen_copy
from mim_mm.compat.leave import leave
from mim_mm.registry import MODELS

# AdamW with a large epsilon: without it, gradients that are zero but for rounding decide the sign of a step.
STEADY = {
    'optim_wrapper.optimizer.eps': 1e-3,
    'optim_wrapper.optimizer.lr': 1e-2,
    'optim_wrapper.clip_grad': dict(max_norm=0.05),
    'optim_wrapper.on_cpu': False,
    'param_scheduler': [dict(type='CosineAnnealingLR', by_epoch=True, convert_to_iter_based=True)],
}


def run(cfg, work_dir, stop_after=None):
    """Train ``cfg``; ``stop_after`` ends it after that many epochs as a kill would."""
    cfg.work_dir, cfg.launcher = str(work_dir), 'pytorch'
    cfg.experiment_name = f'{work_dir.name}-{stop_after}-{cfg.resume}'
    if not cfg.get('runner_type'):
        cfg.model_wrapper_cfg = dict(type='MMDistributedDataParallel', device_ids=None, broadcast_buffers=False)
    runner = RUNNERS.build(cfg) if cfg.get('runner_type') else Runner.from_cfg(cfg)
    if stop_after:
        runner.register_hook(StopHook(stop_after), 'LOWEST')
    try:
        runner.train()
    except Killed:
        pass
    return runner


def pretraining(recipe, images, start, sharded=True, **options):
    """A pretraining recipe at test size, two epochs of two steps, its only randomness that of the masks."""
    cfg = shrunken(recipe, **{
        **STEADY,
        'train_dataloader.dataset.data_root': str(images),
        'train_dataloader.dataset.data_prefix': '',
        'train_dataloader.dataset.pipeline.2.prob': 0.0,
        'train_dataloader.batch_size': 2,
        'train_cfg.max_epochs': 2,
        'load_from': str(start),
        **options,
    })  # fmt: skip
    cfg.train_dataloader.dataset.pipeline[:2] = [dict(type='LoadImageFromFile'), dict(type='Resize', scale=(32, 32))]
    if not sharded:
        cfg.pop('strategy'), cfg.pop('runner_type')
    return cfg


def resumed(cfg, checkpoint):
    cfg.resume, cfg.load_from = True, str(checkpoint)
    return cfg


def fine_tuning(recipe, images, checkpoint, batch=2, sharded=True, **options):
    """A fine-tuning recipe at test size, with nothing random in it, images in the order of the folder."""
    cfg = Config.fromfile(ROOT / recipe)
    cfg.merge_from_dict({
        **STEADY,
        'model.backbone.img_size': 32, 'model.backbone.patch_size': 8, 'model.backbone.drop_path_rate': 0.0,
        'model.head.in_channels': 32, 'model.head.num_classes': 2,
        'model.train_cfg': None,
        'train_dataloader.sampler.shuffle': False,
        'init': str(checkpoint),
        'train_cfg.max_epochs': 2, 'auto_scale_lr': None,
        'val_evaluator.topk': [1], 'test_evaluator': None, 'test_dataloader': None, 'test_cfg': None,
        'default_hooks.logger.interval': 1,
        **options,
    })  # fmt: skip
    cfg.model.backbone.arch = dict(TINY_ARCH)
    pipeline = [dict(type='LoadImageFromFile'), dict(type='Resize', scale=(32, 32)), dict(type='PackInputs')]
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        loader.update(batch_size=batch, num_workers=0, persistent_workers=False, pin_memory=False)
        loader.dataset.update(data_root=str(images), pipeline=pipeline)
        loader.dataset.pop('split', None)
        loader.dataset.update(data_prefix='', classes_from=None)  # one folder for both: it numbers itself
    cfg.train_dataloader.drop_last = True
    if not sharded:
        cfg.pop('strategy', None), cfg.pop('runner_type', None)
    return cfg


@MODELS.register_module()
class Following(MAE):
    """With a teacher."""

    def __init__(self, **options):
        super().__init__(**options)
        self.teacher = frozen_copy(self.backbone)
        self.teachers = [Teacher({'backbone': 'teacher'}, 0.9)]


def main():
    images, start, out = (Path(word) for word in sys.argv[1:4])
    torch.set_num_threads(1)
    # mmengine lays out the text of each config several times a run, which would take most of the time here.
    yapf_api.FormatCode = lambda text, **options: (text, True)
    torch.distributed.init_process_group('gloo')
    written, write = [], files.write_bytes

    def watched(path, data, *args):
        assert get_rank() == 0, f'rank {get_rank()} writes {path}'
        written.append(str(path))
        write(path, data, *args)

    files.write_bytes = watched

    def mae(sharded=True, recipe='mae/mae_vitl_800e_fsdp.py', **options):
        return pretraining(f'configs/{recipe}', images, start, sharded, **options)

    run(mae(sharded=False), out / 'ddp')
    runner = run(mae(), out / 'fsdp')
    torch.save(sum(p.numel() for p in runner.model.parameters()), out / f'shard{get_rank()}.pt')
    run(mae(), out / 'cut', stop_after=1)
    run(resumed(mae(), out / 'cut/epoch_1.pth'), out / 'cut')
    run(resumed(mae(), out / 'ddp/epoch_1.pth'), out / 'ddp_then_fsdp')
    run(resumed(mae(sharded=False), out / 'fsdp/epoch_1.pth'), out / 'fsdp_then_ddp')
    bf16 = {'optim_wrapper.on_cpu': True, 'load_from': None}
    halved = dict(param_dtype='bfloat16', reduce_dtype='float32', cast_forward_inputs=False)
    halved = {'strategy.model_wrapper.mixed_precision': dict(halved, cast_root_forward_inputs=False)}
    run(mae(recipe='emae/emae_vith_800e_fsdp.py', **bf16), out / 'emae_vith')
    run(mae(recipe='emae/emae_vitl_800e_fsdp.py', **bf16), out / 'emae_vitl')
    run(mae(recipe='mae/mae_vith_1600e_fsdp.py', **bf16, **halved), out / 'mae_vith')
    tune = 'configs/finetune/vitl_finetune_50e_fsdp.py'
    run(fine_tuning(tune, images, out / 'fsdp'), out / 'ft_fsdp')
    run(fine_tuning(tune, images, out / 'fsdp', sharded=False), out / 'ft_ddp')
    tune = 'configs/finetune/vith_finetune_50e_fsdp.py'
    run(fine_tuning(tune, images, out / 'fsdp', **{'optim_wrapper.accumulative_counts': 2}), out / 'ft_vith')
    messages = refused(mae, out)
    if get_rank() == 0:
        (out / 'refused.json').write_text(json.dumps(messages))
        (out / 'written.txt').write_text('\n'.join(written))
    del runner


def refused(mae, out):
    """What configs that cannot work end with."""
    messages = {}
    for name, options in {
        'blocks': {'strategy.blocks': ['Nothing']},
        'ema': {'custom_hooks': [dict(type='EMAHook')]},
        'clip': {'optim_wrapper.clip_grad': dict(max_norm=1.0, error_if_nonfinite=True)},
        'local': {'strategy.state_dict_cfg': 'local'},
        'ignored': {'activation_checkpointing': ['backbone.layers']},
        'attention': {'model.masker': dict(_delete_=True, type='AttMask', ratio=0.75)},
        'teacher': {'model.type': 'Following'},
        'groups': {'optim_wrapper.paramwise_cfg.norm_decay_mult': 1.0},
    }.items():
        cfg = mae(**options)
        try:
            run(resumed(cfg, out / 'fsdp/epoch_1.pth') if name == 'groups' else cfg, out / f'refused_{name}')
            messages[name] = 'nothing'
        except ValueError as error:
            messages[name] = str(error)
    return messages


if __name__ == '__main__':
    main()
    leave()
