"""Chains and sweeps through a real Slurm on this machine: tiny trainings, real jobs, arrays, dependencies, requeues."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy
import pytest
import torch
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
VIT = (
    'backbone=dict(arch=dict(_delete_=True, embed_dims=32, num_layers=2, num_heads=2, feedforward_channels=64), '
    'img_size=32, patch_size=8'
)
LOADER = 'batch_size={batch}, num_workers=0, persistent_workers=False, pin_memory=False'
# Notes every iteration in a file, and takes its time, so that a signal finds the training at work.
SLOW = """
import os, time
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

@HOOKS.register_module()
class Slow(Hook):
    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if os.path.exists('broken'):
            raise RuntimeError('out of luck')
        time.sleep(float(os.environ.get('SLOW_S', 0)))
        with open(os.path.join(runner.work_dir, 'trained'), 'a') as file:
            file.write(f'{get_rank()} {runner.iter} {batch_idx}\\n')
"""
PRETRAIN = f"""
_base_ = r'{ROOT}/configs/emae/emae_vitb_800e.py'
model = dict({VIT}), decoder=dict(embed_dims=32, depth=1, num_heads=2))
train_pipeline = [dict(type='LoadImageFromFile'),
                  dict(type='mmpretrain.RandomResizedCrop', scale=32, crop_ratio_range=(0.6, 1.0)),
                  dict(type='PackImage')]
train_dataloader = dict({LOADER.format(batch=2)}, dataset=dict(pipeline=train_pipeline))
custom_imports = dict(imports=['slow'])
custom_hooks = [dict(type='Slow'), dict(type='mim_mm.MaskSeedHook'),
                dict(type='mim_mm.StopOnSignalHook', interval=2)]
train_cfg = dict(max_epochs=2)
param_scheduler = []
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(interval=1))
"""
LINEAR = f"""
_base_ = r'{ROOT}/configs/linear/vitb_linear_90e.py'
model = dict({VIT}, frozen_stages=2), neck=dict(input_features=32), head=dict(num_classes=2, in_channels=32))
steps = [dict(type='LoadImageFromFile'), dict(type='Resize', scale=(32, 32)), dict(type='PackInputs')]
train_dataloader = dict({LOADER.format(batch=6)}, dataset=dict(pipeline=steps))
val_dataloader = dict({LOADER.format(batch=6)}, dataset=dict(pipeline=steps))
val_evaluator = dict(topk=(1,))
train_cfg = dict(max_epochs=2)
"""


class Place:
    """A folder with twelve images, two configs and a chain; and the commands a user types in it."""

    def __init__(self, folder: Path, with_linear=True, slow_s=0.0):
        self.folder, self.work = folder, folder / 'work'
        noise = numpy.random.default_rng(0)
        for split in ('train', 'val'):
            for label, name in enumerate(('dark', 'light')):
                (folder / 'data' / split / name).mkdir(parents=True)
                for i in range(6):
                    pixels = noise.integers(0, 128, (32, 32, 3)) + 127 * label
                    Image.fromarray(pixels.astype('uint8')).save(folder / 'data' / split / name / f'{i}.png')
        (folder / 'pretrain.py').write_text(PRETRAIN)
        (folder / 'linear.py').write_text(LINEAR)
        (folder / 'slow.py').write_text(SLOW)
        stages = dict(pretrain=dict(kind='pretrain', config=f'{folder}/pretrain.py', arm='emae'))
        if with_linear:
            stages['linear'] = dict(kind='linear', config=f'{folder}/linear.py', init='pretrain', seeds=[0, 1])
        stages['report'] = dict(kind='report')
        (folder / 'tiny.py').write_text(f'name = "tiny"\nwork_dir = "work"\nstages = {stages!r}\n')
        self.env = dict(os.environ, PYTHONPATH=f'{folder}{os.pathsep}{ROOT}', OMP_NUM_THREADS='1',
                        CUDA_VISIBLE_DEVICES='', SLOW_S=str(slow_s), IMAGENET_ROOT=f'{folder}/data')  # fmt: skip

    def run(self, *command) -> str:
        done = subprocess.run([str(word) for word in command], cwd=self.folder, env=self.env, text=True,
                              capture_output=True, timeout=300)  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def submit(self, *more) -> str:
        return self.run(sys.executable, ROOT / 'tools/transfer.py', 'tiny.py', '--gpus', 0, '--launcher', 'slurm',
                        *more, '--slurm', 'time=20')  # fmt: skip

    def jobs(self, work=None) -> dict:
        return {name: entry['job'] for name, entry in read(work or self.work, 'slurm.json')['jobs'].items()}

    def record(self, stage) -> dict:
        return read(self.work / stage, 'run.json')

    def trained(self) -> list:
        path = self.work / 'pretrain' / 'trained'
        return [tuple(map(int, line.split())) for line in path.read_text().splitlines()] if path.exists() else []

    def log(self) -> str:
        return '\n'.join(path.read_text() for path in sorted((self.work / 'slurm').glob('*_log.out')))


def read(folder, name) -> dict:
    return json.loads((folder / name).read_text())


def queue() -> list:
    """What squeue prints; a busy controller is asked again, and one that does not answer is no empty queue."""
    command = ['squeue', '--me', '--array', '--noheader', '--format=%i %T %r']
    for _ in range(10):
        done = subprocess.run(command, capture_output=True, text=True)
        if not done.returncode:
            return done.stdout.splitlines()
        time.sleep(1)
    raise AssertionError(f'squeue fails: {done.stderr}')


def wait_for(condition, what, place, seconds=600):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return
        time.sleep(0.2)
    raise AssertionError(f'waited {seconds} s for {what}; queue {queue()}; jobs said:\n{place.log()}')


def wait_until_idle(place):
    wait_for(lambda: not queue(), 'the queue to be empty', place)


def ended(job) -> str:
    said = subprocess.run(['scontrol', 'show', 'job', '--oneliner', job], capture_output=True, text=True).stdout
    return re.search(r'JobState=(\w+)', said)[1]


@pytest.fixture(autouse=True)
def clean_queue():
    yield
    left = [line.split()[0] for line in queue()]
    if left:
        subprocess.run(['scancel', *left])


def test_stages_wait_for_each_other_seeds_are_an_array_and_a_second_call_adds_nothing(tmp_path):
    place = Place(tmp_path, slow_s=0.5)
    said = place.submit()
    jobs = place.jobs()
    array = jobs['linear-s0'].partition('_')[0]
    assert (jobs['linear-s0'], jobs['linear-s1']) == (f'{array}_0', f'{array}_1')
    assert f'scancel {jobs["pretrain"]} {array} {jobs["report"]}' in said
    states = {line.split()[0]: line.split(None, 1)[1] for line in queue()}
    assert states[f'{array}_0'] == 'PENDING Dependency' and states[jobs['report']] == 'PENDING Dependency'

    again = place.submit()
    assert 'nothing to submit' in again and f'job {array}_1 is PENDING (Dependency)' in again
    assert place.jobs() == jobs and {line.split()[0] for line in queue()} == set(states)
    # The same chain without Slurm would write into the same folders.
    refused = subprocess.run([sys.executable, str(ROOT / 'tools/transfer.py'), 'tiny.py', '--gpus', '0'],
                             cwd=tmp_path, env=place.env, capture_output=True, text=True)  # fmt: skip
    assert refused.returncode == 2 and f'jobs of this chain are queued: {jobs["pretrain"]}' in refused.stderr

    wait_until_idle(place)
    pretrain, *linear = (place.record(stage) for stage in ('pretrain', 'linear-s0', 'linear-s1'))
    assert {record['status'] for record in (pretrain, *linear)} == {'done'}, place.log()
    assert all(record['started'] >= pretrain['finished'] for record in linear)
    assert [record['seed'] for record in linear] == [0, 1]
    assert all('accuracy/top1' in record['metrics'] for record in linear)
    assert len({record['parent']['sha256'] for record in linear}) == 1
    assert place.record('report')['status'] == 'done' and (place.work / 'report.html').is_file()
    assert [ended(jobs[name]) for name in ('pretrain', 'report')] == ['COMPLETED'] * 2

    said = place.submit()
    assert said.count('skip     done') == 3 and 'nothing to submit' in said and queue() == []


@pytest.mark.parametrize('how', ['warned', 'requeued'])
def test_a_preempted_training_goes_on_where_it_was(tmp_path, how):
    """Two tasks under srun; Slurm's warning before a job's end, or an administrator's requeue out of the blue."""
    place = Place(tmp_path, with_linear=False, slow_s=0.8)
    place.run(sys.executable, ROOT / 'tools/transfer.py', 'tiny.py', '--gpus', 0, '--launcher', 'slurm', '--slurm',
              'time=20', 'pretrain.ntasks_per_node=2')  # fmt: skip
    job = place.jobs()['pretrain']
    wait_for(lambda: (0, 1, 1) in place.trained(), 'the second iteration', place)
    command = ['scancel', '--signal=USR1', job] if how == 'warned' else ['scontrol', 'requeue', job]
    subprocess.run(command, check=True)
    wait_for(lambda: f'{job} PENDING BeginTime' in queue(), 'the job to be back in the queue', place)
    time.sleep(2)  # slurmd refuses a job that it killed within the same second; the job would then stay held
    subprocess.run(['scontrol', 'update', f'JobId={job}', 'StartTime=now'], check=True)  # Slurm would wait two minutes
    wait_until_idle(place)
    assert place.jobs()['pretrain'] == job
    record = place.record('pretrain')
    assert record['status'] == 'done', place.log()
    assert len(record['attempts']) == 2, place.log()
    first, second = record['attempts']
    # An administrator's requeue may end the job's own process before it has written down that the training stopped.
    assert first['status'] in (['interrupted'] if how == 'warned' else ['interrupted', 'cut off'])
    assert re.fullmatch(r'stopped_iter_\d\.pth', second['resumed_from'])
    shown = subprocess.run(['scontrol', 'show', 'job', '--oneliner', job], capture_output=True, text=True).stdout
    assert 'Restarts=1' in shown and 'JobState=COMPLETED' in shown
    # 12 images, 2 tasks, 2 a batch: 3 iterations an epoch. Each of 6 was trained once by each task, in its own place.
    assert sorted(place.trained()) == [(rank, i, i % 3) for rank in (0, 1) for i in range(6)]
    assert '8 images an optimizer step on 2 process(es)' in (place.work / 'pretrain/chain.log').read_text()
    assert place.record('report')['status'] == 'done'

    # ... and what came out is what an undisturbed training of two processes gives, bit for bit.
    place.env.update(SLOW_S='0', PYTHON=sys.executable, PORT='0')
    place.run('bash', ROOT / 'tools/dist_train.sh', 'pretrain.py', 2, '--work-dir', 'alone', '--seed', 0)
    ours, theirs = (torch.load(place.folder / folder / 'epoch_2.pth', weights_only=True)['state_dict']
                    for folder in ('work/pretrain', 'alone'))  # fmt: skip
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


def test_a_failure_takes_its_children_along_and_is_submitted_again(tmp_path):
    place = Place(tmp_path)
    (tmp_path / 'broken').touch()
    place.submit()
    before = place.jobs()
    wait_until_idle(place)
    assert ended(before['pretrain']) == 'FAILED' and ended(before['linear-s1']) == 'CANCELLED'
    assert ended(before['report']) == 'COMPLETED', 'the report is made whatever happens'
    record = place.record('pretrain')
    assert record['status'] == 'failed' and 'out of luck' in record['error']
    assert not (place.work / 'linear-s0').exists()
    (tmp_path / 'broken').unlink()
    said = place.submit()
    assert f'failed before its first checkpoint; from the start (job {before["pretrain"]}: FAILED)' in said
    assert not set(before.values()) & set(place.jobs().values())
    wait_until_idle(place)
    assert {place.record(stage)['status'] for stage in ('pretrain', 'linear-s0', 'linear-s1', 'report')} == {'done'}


def test_a_sweep_is_one_array(tmp_path):
    place = Place(tmp_path, with_linear=False)
    (tmp_path / 'sweep.py').write_text(
        f"chain = r'{tmp_path}/tiny.py'\nwork_dir = 'swept'\ngrid = {{'pretrain.model.masker.num_parts': [2, 4]}}\n"
    )
    command = [sys.executable, ROOT / 'tools/sweep.py', 'sweep.py', '--gpus', 0, '--launcher', 'slurm',
               '--slurm', 'time=9']  # fmt: skip
    place.run(*command)
    jobs = place.jobs(tmp_path / 'swept')
    assert sorted(job.partition('_')[2] for job in jobs.values()) == ['0', '1']
    assert len({job.partition('_')[0] for job in jobs.values()}) == 1
    place.run(*command)
    assert place.jobs(tmp_path / 'swept') == jobs, 'a second call submits nothing'
    wait_until_idle(place)
    for name in jobs:
        assert read(tmp_path / 'swept' / name / 'pretrain', 'run.json')['status'] == 'done'
        assert (tmp_path / 'swept' / name / 'report.html').is_file()
    assert 'nothing to submit' in place.run(*command)
