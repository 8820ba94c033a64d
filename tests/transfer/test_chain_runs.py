"""The real thing, small: recipes shrunken to 32-px images, trained by tools/train.py, called by tools/transfer.py."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy
import pytest
import torch
from chain_configs import LINEAR, PRETRAIN
from PIL import Image
from processes import in_process
from workplace import wait_for

from mim_mm.transfer import process

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope='module')
def place(tmp_path_factory):
    """Two classes of 12 tiny images, two configs and a chain."""
    folder = tmp_path_factory.mktemp('chain')
    noise = numpy.random.default_rng(0)
    for split in ('train', 'val'):
        for label, name in enumerate(('dark', 'light')):
            (folder / 'data' / split / name).mkdir(parents=True)
            for i in range(6):
                pixels = noise.integers(0, 128, (32, 32, 3)) + 127 * label
                Image.fromarray(pixels.astype('uint8')).save(folder / 'data' / split / name / f'{i}.png')
    (folder / 'pretrain.py').write_text(PRETRAIN)
    (folder / 'linear.py').write_text(LINEAR)
    stages = dict(
        pretrain=dict(kind='pretrain', config=f'{folder}/pretrain.py', arm='emae'),
        linear=dict(
            kind='linear',
            config=f'{folder}/linear.py',
            init='pretrain',
            options={'default_hooks.logger.interval': 2},
            artifacts=[dict(name='resolved', path='copy.py', command='cp {config} {path}')],
        ),
        report=dict(kind='report'),
    )
    (folder / 'tiny.py').write_text(f'name = "tiny"\nwork_dir = "work_dirs/tiny"\nstages = {stages!r}\n')
    return folder


def command(folder, *more):
    script = str(ROOT / 'tools' / 'transfer.py')
    return [
        sys.executable,
        script,
        str(folder / 'tiny.py'),
        '--gpus',
        '0',
        '--data-root',
        f'imagenet={folder}/data',
        *more,
    ]


def start(folder, *more):
    env = dict(os.environ, PYTHONPATH=str(ROOT), OMP_NUM_THREADS='1', CUDA_VISIBLE_DEVICES='')
    return subprocess.Popen(
        command(folder, *more), cwd=folder, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def run(folder, *more):
    child = start(folder, *more)
    said, _ = child.communicate(timeout=300)
    return child.returncode, said


def record(folder, stage):
    return json.loads((folder / 'work_dirs' / 'tiny' / stage / 'run.json').read_text())


def stop_in_linear(folder, child, how):
    """Do ``how`` with the probe's record once the probe has saved its third checkpoint."""
    linear = folder / 'work_dirs' / 'tiny' / 'linear'

    def later():
        if child.poll() is not None:
            raise AssertionError(f'ended too early: {child.stdout.read()}')
        note = linear / 'last_checkpoint'
        return note.exists() and re.search(r'epoch_([3-9]|\d\d)\.pth', note.read_text())

    wait_for(later, 'the probe to save', 200)
    return how(record(folder, 'linear'))


@pytest.mark.slow
def test_kill_9_in_the_middle_and_a_second_call_that_finishes(place):
    child = start(place)

    def kill_both(now):
        os.kill(child.pid, signal.SIGKILL)
        os.killpg(now['process']['pid'], signal.SIGKILL)
        child.communicate()
        wait_for(lambda: not process.group_members(now['process']['pid']), 'the stage to die')

    stop_in_linear(place, child, kill_both)
    work = place / 'work_dirs' / 'tiny'
    assert record(place, 'pretrain')['status'] == 'done' and record(place, 'linear')['status'] == 'running'
    untouched = {path: path.stat().st_mtime_ns for path in (work / 'pretrain').rglob('*')}

    code, said = run(place)
    assert code == 0, said
    assert {path: path.stat().st_mtime_ns for path in (work / 'pretrain').rglob('*')} == untouched, 'not run again'
    linear = record(place, 'linear')
    assert linear['status'] == 'done' and 0 <= linear['metrics']['accuracy/top1'] <= 100
    assert [attempt['status'] for attempt in linear['attempts']] == ['cut off', 'done']
    resumed = int(re.fullmatch(r'epoch_(\d+)\.pth', linear['attempts'][1]['resumed_from'])[1])
    assert resumed >= 3
    second = (work / 'linear' / 'chain.log').read_text().split('\n$ ')[2]
    epochs = [int(epoch) for epoch in re.findall(r'Epoch\(train\)\s+\[(\d+)\]', second)]
    assert epochs[0] == resumed + 1 and epochs[-1] == 40, 'it went on behind its checkpoint, not from the start'
    assert json.loads((work / 'linear' / 'progress.json').read_text())['finished']
    # The encoder of the probe is the pretrained one, bit for bit: it is frozen, and came through the load hook.
    made = torch.load(work / 'pretrain' / 'epoch_3.pth', weights_only=True)['state_dict']
    used = torch.load(work / 'linear' / 'epoch_40.pth', weights_only=True)['state_dict']
    name = 'backbone.layers.1.attn.qkv.weight'
    assert torch.equal(made[name], used[name])
    assert linear['parent']['checkpoint'] == str(work / 'pretrain' / 'epoch_3.pth')
    assert linear['data']['train/train'] == record(place, 'pretrain')['data']['train/train']
    assert linear['data']['train/train']['files'] == 12
    assert (work / linear['stage'] / linear['scalars']).is_file()
    assert 'interval=2' in (work / 'linear' / 'copy.py').read_text(), 'artifacts get the config with its options'
    assert record(place, 'report')['status'] == 'done' and (work / 'report.html').is_file()

    again = in_process('transfer.py', *command(place, '--dry-run')[2:], cwd=place)
    assert again.returncode == 0 and again.stdout.count('skip     done') == 2, again.stdout + again.stderr
