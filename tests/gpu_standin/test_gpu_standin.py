"""Recipes of every family on 'cuda' at real size, where there is no GPU: see build_standin.py for what that finds.

A family trains to the end, and the host waits for the device as often an iteration as families.py says.
Three families run with every `make test`, all of them with `make test-gpu-standin`.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import build_standin
import pytest
from families import COMMANDS, DETECTING, FAMILIES, ON_DDP
from mmengine.utils import digit_version

HERE = Path(__file__).resolve().parent
ALWAYS = ('emae', 'finetune', 'mask-rcnn-fpn')
KNOWN_TORCH = (2, 14)


@pytest.fixture(scope='session')
def standin(tmp_path_factory):
    """The environment of a process with the stand-in GPU, built once; skips where it cannot be built."""
    import torch

    try:
        variables = build_standin.build(tmp_path_factory.mktemp('standin'))
    except build_standin.Unavailable as reason:
        pytest.skip(str(reason))
    error = build_standin.check(variables)
    if error and digit_version(torch.__version__)[:2] != KNOWN_TORCH:
        pytest.skip(f'the stand-in is made for torch {KNOWN_TORCH} and does not carry {torch.__version__}: {error}')
    assert not error, error
    return variables


def test_where_it_cannot_be_built_the_reason_is_said(tmp_path, monkeypatch):
    (tmp_path / 'torch/lib').mkdir(parents=True)
    (tmp_path / 'torch/lib/libtorch_cpu.so').touch()
    with monkeypatch.context() as patch:
        patch.setattr(build_standin, '_folder_of', lambda package: tmp_path / package)
        patch.setattr(build_standin.shutil, 'which', lambda tool: f'/usr/bin/{tool}')
        with pytest.raises(build_standin.Unavailable, match='built without CUDA'):
            build_standin.build(tmp_path / 'out')
        patch.setattr(build_standin.shutil, 'which', lambda tool: None if tool == 'gcc' else f'/usr/bin/{tool}')
        with pytest.raises(build_standin.Unavailable, match='needs gcc$'):
            build_standin.build(tmp_path / 'out')


def run(standin, *words):
    """A Python process that sees the stand-in; what it printed."""
    done = subprocess.run(
        [sys.executable, *words], env={**os.environ, **standin}, cwd=HERE, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_numbers_drawn_on_the_host_follow_the_generator_of_the_gpu(standin):
    run(standin, 'host_draws.py')


@pytest.mark.full
def test_the_plan_knows_the_memory_that_the_allocator_takes(standin):
    lines = run(standin, 'peaks.py', 'emae/emae_vits_300e:64', 'ibot/ibot_vits_800e:32', 'finetune/vits_finetune_200e')
    found = [json.loads(line) for line in lines.splitlines() if line.startswith('{')]
    assert len(found) == 3
    for row in found:
        assert 0.9 < row['allocated'] / row['planned'] < 1.1, row


@pytest.mark.full
def test_the_roofline_counts_every_product(standin):
    (line,) = [line for line in run(standin, 'roofline.py', 'mae/mae_vits_300e:64').splitlines() if line[0] == '{']
    row = json.loads(line)
    # 39.0 GFLOP an image in training at 790 TFLOP/s alone, and bytes on top
    assert 1e3 * row['batch'] / sum(row['milliseconds'].values()) < 790e12 / 39.0e9
    assert row['milliseconds']['mm'] > 1e3 * 64 * 0.6 * 39.0e9 / 790e12 and 'clone' not in row['milliseconds']


@pytest.fixture(scope='module')
def results(standin, request, tmp_path_factory):
    """Folder and exit codes of all jobs that are going to be asked for, from one process."""
    items = [item for item in request.session.items if item.path == Path(__file__)]
    names = [item.callspec.params['job'] for item in items if 'job' in getattr(item, 'fixturenames', ())]
    folder = tmp_path_factory.mktemp('jobs')
    done = subprocess.run(
        [sys.executable, str(HERE / 'jobs.py'), str(folder), *names],
        env={**os.environ, **standin},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return folder, json.loads((folder / 'results.json').read_text())


def jobs(names):
    return [pytest.param(name, marks=() if name in ALWAYS else pytest.mark.full) for name in names]


@pytest.mark.parametrize('job', jobs(FAMILIES))
def test_a_recipe_of_every_family_trains_on_cuda(job, results):
    folder, codes = results
    log = (folder / job / 'log.txt').read_text()
    assert codes[job] == 0, log[-3000:]
    progress = json.loads((folder / job / 'progress.json').read_text())
    assert progress['device'] == 'Stand-in GPU' and progress['finished'], progress
    assert progress['iter'] == progress['max_iters'] >= 2
    assert 'training goes on' not in log, 'a hook failed and said so'
    memory = re.findall(r'\((?:train)\).* memory: (\d+)', log)
    assert memory and min(map(int, memory)) > 100, 'MB on the device'
    found = json.loads((folder / job / 'waits.json').read_text())
    silent = [i for i in range(1, len(found['iterations'])) if i not in found['logged']]
    waits, allowed = [found['iterations'][i] for i in silent], FAMILIES[job].waits
    exact = allowed not in (DETECTING, ON_DDP)
    assert silent and (max(waits) == allowed if exact else max(waits) <= allowed), (waits, found['places'][silent[0]])


@pytest.mark.parametrize('job', jobs(COMMANDS))
def test_every_tool_with_a_device_runs_on_cuda(job, results):
    folder, codes = results
    assert codes[job] == 0, (folder / job / 'log.txt').read_text()[-3000:]
