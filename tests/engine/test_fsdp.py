"""Sharded training equals unsharded training, and nobody can tell from its checkpoints.

One job of two gloo processes does all trainings (tests/helpers/fsdp_job.py); the tests compare what it left behind.
"""

import json
import os
import re
import shutil
import subprocess
import sys

import pytest
import torch
from fsdp_job import fine_tuning
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from processes import ANY_PORT, in_process, run
from tiny_run import ROOT, SHRINK, as_words, shrunken

from mim_mm.checkpoint.checksum import is_whole
from mim_mm.checkpoint.load import load_encoder
from mim_mm.engine.fsdp.fsdp_strategy import plain_name
from mim_mm.registry import MODELS

MAE = 'configs/mae/mae_vitl_800e_fsdp.py'


@pytest.fixture(scope='module')
def job(tmp_path_factory):
    """The folder that the job wrote to; START is the checkpoint that its pretrainings begin with."""
    import numpy
    from PIL import Image

    out = tmp_path_factory.mktemp('fsdp')
    for i in range(10):
        folder = out / f'images/class{i % 2}'
        folder.mkdir(parents=True, exist_ok=True)
        pixels = numpy.random.default_rng(i).integers(0, 255, (40, 40, 3), dtype=numpy.uint8)
        Image.fromarray(pixels).save(folder / f'{i}.png')
    torch.manual_seed(0)
    model = MODELS.build(shrunken(MAE).model)
    torch.save({'state_dict': model.state_dict()}, out / 'start.pth')
    command = [sys.executable, '-m', 'mim_mm.compat.torchrun', '--nproc_per_node=2', '--master_addr=127.0.0.1',
               '--master_port=0',
               'tests/helpers/fsdp_job.py', str(out / 'images'), str(out / 'start.pth'), str(out)]  # fmt: skip
    path = os.pathsep.join([str(ROOT), str(ROOT / 'tests' / 'helpers')])
    environment = {**os.environ, 'PYTHONPATH': path, 'OMP_NUM_THREADS': '1'}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-4000:]
    (out / 'log.txt').write_text(done.stdout + done.stderr)
    return out


def saved(job, name, epoch=2):
    return torch.load(job / name / f'epoch_{epoch}.pth', weights_only=True)


def scalars(checkpoint, name):
    return checkpoint['message_hub']['log_scalars'][f'train/{name}']['log']


def assert_equal_runs(a, b, tolerance):
    """Same names, shapes and order; weights, optimizer states, losses and gradient norms equal to ``tolerance``."""
    assert a.keys() == b.keys() and a['meta'].keys() == b['meta'].keys()
    assert list(a['state_dict']) == list(b['state_dict'])
    for name, value in a['state_dict'].items():
        torch.testing.assert_close(value, b['state_dict'][name], rtol=0, atol=tolerance, msg=lambda m, n=name: n + m)
    mine, other = a['optimizer'], b['optimizer']
    assert mine.keys() == other.keys() and mine['param_groups'] == other['param_groups']
    assert mine['state'].keys() == other['state'].keys()
    for i, state in mine['state'].items():
        assert state.keys() == other['state'][i].keys()
        for key, value in state.items():
            torch.testing.assert_close(value, other['state'][i][key], rtol=1e-4, atol=tolerance * 1e-2)
    for name in ('loss', 'grad_norm'):
        torch.testing.assert_close(scalars(a, name), scalars(b, name), rtol=0, atol=tolerance)


def test_four_steps_equal_those_of_ddp(job):
    start = torch.load(job / 'start.pth', weights_only=True)['state_dict']
    ddp, fsdp = saved(job, 'ddp'), saved(job, 'fsdp')
    assert_equal_runs(ddp, fsdp, 1e-5)
    moved = max((value - start[name]).abs().max() for name, value in fsdp['state_dict'].items())
    assert moved > 1e-3 and len(scalars(fsdp, 'loss')) == 4
    assert (scalars(fsdp, 'grad_norm') > 0.05).all(), 'the clipping at 0.05 was at work'
    # Sharded they were: each process held half of every block.
    shards = [torch.load(job / f'shard{rank}.pt') for rank in (0, 1)]
    whole = sum(value.numel() for value in start.values())
    assert sum(shards) >= whole  # padding may add a little
    assert max(shards) < 0.55 * whole


def test_an_interrupted_run_goes_on_as_if_nothing_had_happened(job):
    assert_equal_runs(saved(job, 'fsdp'), saved(job, 'cut'), 1e-7)


@pytest.mark.parametrize('name', ['ddp_then_fsdp', 'fsdp_then_ddp'])
def test_a_run_may_change_between_sharded_and_not(job, name):
    assert_equal_runs(saved(job, 'ddp'), saved(job, name), 1e-5)


def test_parameter_groups_are_those_of_the_whole_model(job):
    """A sharded parameter has one dimension, for which the recipe would switch weight decay off."""
    cfg = shrunken(MAE)
    init_default_scope(cfg.default_scope)
    model = MODELS.build(cfg.model)
    whole = [p for g in build_optim_wrapper(model, cfg.optim_wrapper).optimizer.param_groups for p in g['params']]
    groups = saved(job, 'fsdp')['optimizer']['param_groups']
    decay = {i: group['weight_decay'] for group in groups for i in group['params']}
    for i, parameter in enumerate(whole):
        assert decay[i] == (0.05 if parameter.ndim > 1 else 0.0), tuple(parameter.shape)
    tuned = saved(job, 'ft_fsdp')['optimizer']['param_groups']
    # layer decay 0.75 over two blocks: patch embedding, two blocks, head
    assert sorted({round(group['lr_scale'], 6) for group in tuned}) == [0.421875, 0.5625, 0.75, 1.0]


def test_the_encoder_loads_into_a_fine_tuning_model_completely(job):
    cfg = fine_tuning('configs/finetune/vitl_finetune_50e.py', job / 'images', job / 'fsdp')
    model = MODELS.build(cfg.model)
    report = load_encoder(model.backbone, job / 'fsdp', 'backbone.', 0.95)
    assert report.fraction == 1.0
    weights = saved(job, 'fsdp')['state_dict']
    for name, value in model.backbone.named_parameters():
        if not name.startswith('ln2'):
            assert torch.equal(value, weights[f'backbone.{name}']), name


def test_fine_tuning_begins_with_the_encoder_and_equals_ddp_and_one_process(job, tmp_path):
    report = json.loads((job / 'ft_fsdp/load_report.json').read_text())
    assert report['fraction'] == 1.0 and report['values']['random'] == 0
    fsdp, ddp = saved(job, 'ft_fsdp'), saved(job, 'ft_ddp')
    assert_equal_runs(fsdp, ddp, 1e-5)
    cfg = fine_tuning('configs/finetune/vitl_finetune_50e.py', job / 'images', job / 'fsdp', batch=4)
    cfg.work_dir, cfg.experiment_name = str(tmp_path / 'one'), 'one-process'
    Runner.from_cfg(cfg).train()
    one = saved(tmp_path, 'one')
    # 10 images: 5 for each of two processes make 2 steps of 2 x 2; one process sees the same 8 in 2 steps of 4.
    assert one['meta']['iter'] == ddp['meta']['iter'] == 4
    for name, value in one['state_dict'].items():
        torch.testing.assert_close(ddp['state_dict'][name], value, rtol=0, atol=1e-5, msg=lambda m, n=name: n + m)
    torch.testing.assert_close(scalars(fsdp, 'grad_norm'), scalars(one, 'grad_norm'), rtol=1e-4, atol=1e-5)


def test_the_first_process_alone_writes_and_atomically(job):
    """The job fails when the atomic writer is called on rank 1; every checkpoint went through it."""
    written = set((job / 'written.txt').read_text().split('\n'))
    checkpoints = {str(path) for path in job.glob('*/*.pth')}
    assert len(checkpoints) >= 15 and checkpoints <= written
    assert all(is_whole(path) for path in checkpoints)
    assert not list(job.rglob('*.tmp')) and not list(job.glob('*/rank*'))
    assert (job / 'cut/last_checkpoint').read_text() == str(job / 'cut/epoch_2.pth')


@pytest.mark.parametrize('name', ['emae_vith', 'emae_vitl', 'mae_vith', 'ft_vith'])
def test_every_recipe_trains(job, name):
    """Under autocast as well, with bf16 all-gathers in mae_vith and gradient accumulation in ft_vith."""
    checkpoint = saved(job, name)
    assert torch.isfinite(scalars(checkpoint, 'loss')).all() and checkpoint['meta']['iter'] == 4
    assert {value.dtype for value in checkpoint['state_dict'].values()} == {torch.float32}
    assert scalars(checkpoint, 'loss')[-1] < 1.6


def test_blocks_are_really_recomputed(job):
    lines = [line for line in (job / 'log.txt').read_text().split('\n') if 'FSDP: ' in line]
    assert sum('FSDP: 3 blocks sharded one by one, 3 of them recomputed' in line for line in lines) >= 6
    assert sum('FSDP: 2 blocks sharded one by one, 2 of them recomputed' in line for line in lines) >= 2


@pytest.mark.parametrize('name, message', [
    ('blocks', r"no module of a class in strategy.blocks=\['Nothing'\]"),
    ('ema', r"\['EMAHook'\] copies the model"),
    ('clip', r"clip_grad has \['error_if_nonfinite'\]"),
    ('local', r"strategy sets \['state_dict_cfg'\]"),
    ('ignored', r"\['activation_checkpointing'\] of the config would be ignored.*strategy.activation_checkpointing"),
    ('attention', 'reads the attention of a block'),
    ('teacher', 'Following has a teacher that follows .* a recipe without FSDP'),
    ('groups', 'parameter groups of .* resume with the optim_wrapper of that run'),
])  # fmt: skip
def test_what_cannot_work_is_refused(job, name, message):
    refused = json.loads((job / 'refused.json').read_text())
    assert re.search(message, refused[name]), refused[name]


def test_plain_names():
    name = '_fsdp_wrapped_module.backbone.layers.0._fsdp_wrapped_module._checkpoint_wrapped_module.ln1.bias'
    assert plain_name(name) == 'backbone.layers.0.ln1.bias'


def test_the_command_line_trains_and_resumes(image_folder, tmp_path):
    (image_folder / 'train').mkdir()
    for name in ('class0', 'class1'):
        shutil.move(image_folder / name, image_folder / 'train' / name)
    options = as_words({**SHRINK, 'train_cfg.max_epochs': 1, 'train_dataloader.batch_size': 2})
    command = ['tools/dist_train.sh', MAE, '2', '--work-dir', str(tmp_path / 'run'), '--data-root', str(image_folder),
               '--auto-scale-lr', '--seed', '3', '--cfg-options', *options]  # fmt: skip
    done = run(command, PORT=ANY_PORT)
    assert done.returncode == 0, done.stderr[-3000:]
    assert 'lr 0.0024 for batch 4096 -> 2.344e-06 for batch 4' in done.stdout + done.stderr
    progress = json.loads((tmp_path / 'run/progress.json').read_text())
    assert progress['finished'] and progress['iter'] == 2 and progress['checkpoint'] == 'epoch_1.pth'
    again = run([*command, 'train_cfg.max_epochs=2', '--resume'], PORT=ANY_PORT)
    assert again.returncode == 0, again.stderr[-3000:]
    assert 'resuming from' in again.stdout + again.stderr
    assert 'schedule of this run: HalfCosineLR.' in again.stdout + again.stderr
    meta = torch.load(tmp_path / 'run/epoch_2.pth', weights_only=True)['meta']
    assert meta['iter'] == 4 and meta['seed'] == 3

    alone = in_process('train.py', MAE, '--data-root', image_folder, '--work-dir', tmp_path / 'no')
    assert alone.returncode == 2 and 'tools/dist_train.sh CONFIG GPUS' in alone.stderr
    mixed = in_process('train.py', MAE, '--data-root', image_folder, '--work-dir', tmp_path / 'no', '--cfg-options',
                       'runner_type=')  # fmt: skip
    assert mixed.returncode == 2 and "runner_type='mim_mm.ShardedRunner'" in mixed.stderr
