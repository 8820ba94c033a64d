"""A comparison for real: two arms and scratch, two seeds, 32-px images, through tools/transfer.py."""

import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import mean, stdev

import numpy
import pytest
import torch
from chain_configs import LINEAR, PRETRAIN
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]


def call(folder, *more):
    env = dict(os.environ, PYTHONPATH=str(ROOT), OMP_NUM_THREADS='1', CUDA_VISIBLE_DEVICES='')
    command = [sys.executable, str(ROOT / 'tools' / 'transfer.py'), *more]
    command += ['--gpus', '0', '--data-root', f'imagenet={folder}/data']
    run = subprocess.run(command, cwd=folder, env=env, text=True, capture_output=True, timeout=900)
    return run.returncode, run.stdout + run.stderr


@pytest.mark.slow
def test_two_arms_two_seeds_and_scratch(tmp_path):
    noise = numpy.random.default_rng(0)
    for split in ('train', 'val'):
        for label, name in enumerate(('dark', 'light')):
            (tmp_path / 'data' / split / name).mkdir(parents=True)
            for i in range(6):
                pixels = noise.integers(0, 128, (32, 32, 3)) + 127 * label
                Image.fromarray(pixels.astype('uint8')).save(tmp_path / 'data' / split / name / f'{i}.png')
    (tmp_path / 'emae.py').write_text(PRETRAIN.replace('max_epochs=3', 'max_epochs=1'))
    (tmp_path / 'linear.py').write_text(LINEAR.replace('max_epochs=40', 'max_epochs=3'))
    (tmp_path / 'recipes.py').write_text(
        f"stages = dict(linear=dict(kind='linear', config='{tmp_path}/linear.py', init=None))\n"
    )
    from mmpretrain.registry import MODELS

    torch.manual_seed(0)
    arch = dict(embed_dims=32, num_layers=2, num_heads=2, feedforward_channels=64)
    vit = MODELS.build(dict(type='VisionTransformer', arch=arch, img_size=32, patch_size=8))
    torch.save(dict(state_dict={f'backbone.{k}': v for k, v in vit.state_dict().items()}), tmp_path / 'labelled.pth')
    given = ['--compare', 'emae.py', 'supervised=labelled.pth', '--with', 'recipes.py', '--seeds', '2']

    code, said = call(tmp_path, *given, '--work-dir', 'w')
    assert code == 0, said
    work = tmp_path / 'w'
    records = {(arm, seed): json.loads((work / f'linear_{arm}-s{seed}' / 'run.json').read_text())
               for arm in ('emae', 'supervised', 'scratch') for seed in (0, 1)}  # fmt: skip
    assert all(record['status'] == 'done' for record in records.values())
    for seed in (0, 1):
        assert len({records[arm, seed]['config']['sha256'] for arm in ('emae', 'supervised', 'scratch')}) == 1
    # The frozen encoder of each probe is the one it was given, and scratch's is another.
    name = 'backbone.layers.1.attn.qkv.weight'
    used = {key: torch.load(work / f'linear_{key[0]}-s{key[1]}' / 'epoch_3.pth', weights_only=True)['state_dict'][name]
            for key in records}  # fmt: skip
    made = torch.load(work / 'pretrain_emae' / 'epoch_1.pth', weights_only=True)['state_dict'][name]
    for seed in (0, 1):
        assert torch.equal(used['emae', seed], made)
        assert torch.equal(used['supervised', seed], vit.state_dict()[name.removeprefix('backbone.')])
        assert records['scratch', seed]['parent'] is None and not torch.equal(used['scratch', seed], made)

    page = (work / 'report.md').read_text()
    for arm in ('emae', 'supervised', 'scratch'):
        values = [records[arm, seed]['metrics']['accuracy/top1'] for seed in (0, 1)]
        assert f'**{arm}** | **{mean(values):.1f} ± {stdev(values):.1f} (n = 2)**' in page, page
    assert 'not judged: 2 seeds of both' in page and 'is better' not in page
    assert '**linear** | 0, 1 | **same** | **same** | **same** | **same**' in page
    assert (work / 'report' / 'comparison.png').stat().st_size > 5000 and 'comparison.png' in page

    code, said = call(tmp_path, str(work / 'compare_chain.py'), '--dry-run')
    assert code == 0 and said.count('skip     done') == 7, said
