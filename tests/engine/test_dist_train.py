"""The commands a user types, on two gloo processes and a shrunken model."""

import json
import os
import re
import sys

import pytest
import torch
from processes import ANY_PORT, in_process, run
from tiny_run import ROOT, SHRINK, as_words

OPTIONS = as_words({**SHRINK, 'train_cfg.max_epochs': 1, 'train_dataloader.batch_size': 2})


def test_dist_train_trains_two_processes(image_folder, tmp_path):
    """Resumed, and for more epochs, they are in test_polite_stop.py and test_fsdp.py."""
    (image_folder / 'train').mkdir()
    for name in ('class0', 'class1'):
        (image_folder / name).rename(image_folder / 'train' / name)
    command = ['tools/dist_train.sh', 'configs/emae/emae_vitb_800e.py', '2', '--work-dir', str(tmp_path / 'run'),
               '--data-root', str(image_folder), '--auto-scale-lr', '--seed', '3',
               '--cfg-options', *OPTIONS]  # fmt: skip
    done = run(command, PORT=ANY_PORT)
    assert done.returncode == 0, done.stderr[-3000:]
    log = done.stdout + done.stderr
    # Two processes of two images, accumulated twice as the recipe says.
    assert 'lr 0.0024 for batch 4096 -> 4.687e-06 for batch 8' in log
    assert '8 images an optimizer step on 2 process(es)' in log
    checkpoint = torch.load(tmp_path / 'run/epoch_1.pth', weights_only=True)
    assert checkpoint['meta']['iter'] == 2 and checkpoint['meta']['seed'] == 3  # 10 images, 2 x 2 a step, rest dropped
    assert 'backbone.layers.11.attn.qkv.weight' in checkpoint['state_dict']
    progress = json.loads((tmp_path / 'run/progress.json').read_text())
    assert progress['finished'] and progress['iter'] == 2 and progress['checkpoint'] == 'epoch_1.pth'


@pytest.mark.parametrize('arguments, message', [
    (['configs/emae/emae_vitb_80e.py'], 'there is no config .*; near it: .*emae_vitb_800e.py'),
    (['configs/emae/emae_vitb_800e.py'], "no folder '.*nowhere'"),
    (['configs/emae/emae_vitb_800e.py', '--cfg-options', 'modle.norm_pix=False'], "no 'modle': did you mean 'model'"),
    (['configs/emae/emae_vitb_800e.py', '--data-root', '{images}', '--resume'], 'no whole checkpoint'),
    (['configs/emae/emae_vitb_800e.py', '--data-root', '{images}', '--resume', 'x.pth'], "'x.pth' does not exist"),
])  # fmt: skip
def test_mistakes_stop_before_training(arguments, message, image_folder, tmp_path):
    (image_folder / 'train').mkdir()
    words = [word.format(images=image_folder) for word in arguments]
    words += ['--work-dir', str(tmp_path / 'x')]
    if 'x.pth' in words:  # the others without a start of their own
        done = run([sys.executable, 'tools/train.py', *words], IMAGENET_ROOT=str(tmp_path / 'nowhere'))
    else:
        done = in_process('train.py', *words, IMAGENET_ROOT=str(tmp_path / 'nowhere'))
    assert done.returncode == 2 and 'Traceback' not in done.stderr
    assert re.search(f'error: .*{message}', done.stderr), done.stderr
    assert not (tmp_path / 'x').exists()


def test_launchers_refuse_what_they_cannot_use():
    assert run(['tools/dist_train.sh', 'a.py']).returncode == 2
    done = run(['tools/dist_train.sh', 'a.py', 'many'])
    assert done.returncode == 2 and "GPUS is 'many'" in done.stderr
    assert run(['tools/dist_test.sh', 'a.py', 'b.pth']).returncode == 2
    assert run(['tools/slurm_train.sh', 'partition']).returncode == 2


def test_launchers_pass_the_environment_and_arguments_on(tmp_path):
    fake = tmp_path / 'python'
    fake.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    fake.chmod(0o755)
    done = run(['tools/dist_train.sh', 'c.py', '4', '--amp'], PYTHON=str(fake), NNODES='2', NODE_RANK='1',
               MASTER_ADDR='10.0.0.1', PORT='1234')  # fmt: skip
    words = done.stdout.split('\n')
    for word in ('--nnodes=2', '--node_rank=1', '--master_addr=10.0.0.1', '--master_port=1234', '--nproc_per_node=4'):
        assert word in words
    assert words[words.index('c.py') + 1 :][:3] == ['--amp', '--launcher', 'pytorch']
    srun = tmp_path / 'srun'
    srun.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    srun.chmod(0o755)
    done = run(['tools/slurm_train.sh', 'gpu', 'job', 'c.py', 'wd', '--amp'], PATH=f'{tmp_path}:{os.environ["PATH"]}',
               GPUS='16', GPUS_PER_NODE='8')  # fmt: skip
    words = done.stdout.split('\n')
    for word in (
        '--job-name=job',
        '--gres=gpu:8',
        '--ntasks=16',
        '--ntasks-per-node=8',
        '--launcher=slurm',
        '--amp',
        'wd',
    ):
        assert word in words, done.stdout


def test_test_py_evaluates_a_checkpoint(image_folder, tmp_path):
    """A classifier whose head says class 1 whatever it sees scores the share of class 1."""
    from mmengine.config import Config

    from mim_mm.registry import MODELS

    (image_folder / 'train').mkdir()
    (image_folder / 'class0').rename(image_folder / 'train/class0')
    (image_folder / 'class1').rename(image_folder / 'train/class1')
    (image_folder / 'train/class0/0.png').rename(image_folder / 'train/class1/more.png')
    (image_folder / 'val').symlink_to(image_folder / 'train')
    options = {
        'model.backbone.arch': 'deit-tiny', 'model.backbone.img_size': 32, 'model.backbone.patch_size': 8,
        'model.neck.input_features': 192, 'model.head.in_channels': 192, 'model.head.num_classes': 2,
        'test_dataloader.dataset.pipeline.1.scale': 36, 'test_dataloader.dataset.pipeline.2.crop_size': 32,
        'test_dataloader.num_workers': 0, 'test_dataloader.persistent_workers': False, 'test_evaluator.topk': [1],
    }  # fmt: skip
    cfg = Config.fromfile(ROOT / 'configs/linear/vitb_linear_90e.py')
    cfg.merge_from_dict(options)
    model = MODELS.build(cfg.model)
    model.head.layers.head.weight.data.zero_()
    model.head.layers.head.bias.data = torch.tensor([0.0, 1.0])
    torch.save({'state_dict': model.state_dict()}, tmp_path / 'a.pth')
    words = [f'{k}={str(v).replace(" ", "")}' for k, v in options.items()]
    done = run([sys.executable, 'tools/test.py', 'configs/linear/vitb_linear_90e.py', str(tmp_path / 'a.pth'),
                '--work-dir', str(tmp_path / 'w'), '--data-root', str(image_folder),
                '--cfg-options', *words])  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert 'accuracy/top1: 60.0000' in done.stdout + done.stderr
    missing = in_process('test.py', 'configs/linear/vitb_linear_90e.py', 'no.pth', '--data-root', image_folder)
    assert missing.returncode == 2 and "no checkpoint 'no.pth'" in missing.stderr
