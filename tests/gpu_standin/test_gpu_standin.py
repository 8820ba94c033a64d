"""Recipes of every family on 'cuda' at real size, where there is no GPU: see build.py for what that finds.

Three families run with every `make test`, all of them with `make test-gpu-standin`.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import build
import pytest
from families import FAMILIES
from mmengine.utils import digit_version

HERE = Path(__file__).resolve().parent
ALWAYS = ('emae', 'finetune', 'mask-rcnn-fpn')
KNOWN_TORCH = (2, 14)


@pytest.fixture(scope='session')
def standin(tmp_path_factory):
    """The environment of a process with the stand-in GPU, built once; skips where it cannot be built."""
    import torch

    try:
        variables = build.build(tmp_path_factory.mktemp('standin'))
    except build.Unavailable as reason:
        pytest.skip(str(reason))
    error = build.check(variables)
    if error and digit_version(torch.__version__)[:2] != KNOWN_TORCH:
        pytest.skip(f'the stand-in is made for torch {KNOWN_TORCH} and does not carry {torch.__version__}: {error}')
    assert not error, error
    return variables


@pytest.fixture(scope='module')
def results(standin, request, tmp_path_factory):
    """Exit code of each family that is going to be asked for, from one process; and the folder with what they wrote."""
    items = [item for item in request.session.items if item.path == Path(__file__)]
    wanted = [item.callspec.params['family'] for item in items if 'family' in getattr(item, 'fixturenames', ())]
    folder = tmp_path_factory.mktemp('families')
    done = subprocess.run(
        [sys.executable, str(HERE / 'families.py'), str(folder), *wanted],
        env={**os.environ, **standin},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return folder, json.loads((folder / 'results.json').read_text())


@pytest.mark.parametrize(
    'family', [pytest.param(name, marks=() if name in ALWAYS else pytest.mark.full) for name in FAMILIES]
)
def test_a_recipe_of_the_family_trains_on_cuda(family, results):
    folder, codes = results
    log = (folder / family / 'log.txt').read_text()
    assert codes[family]['code'] == 0, log[-3000:]
    progress = json.loads((folder / family / 'progress.json').read_text())
    assert progress['device'] == 'Stand-in GPU' and progress['finished'], progress
    assert progress['iter'] == progress['max_iters'] >= 2
    assert 'training goes on' not in log, 'a hook failed and said so'
    memory = [int(mb) for mb in re.findall(r'Epoch\(train\).* memory: (\d+)', log) + re.findall(r'Iter\(train\).* memory: (\d+)', log)]
    assert memory and min(memory) > 100, 'MB on the device'
