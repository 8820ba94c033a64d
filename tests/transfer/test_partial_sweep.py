"""The curve of partial fine-tuning as docs/transfer.md has it: its files as they stand, its cost, a tiny run."""

import re
from pathlib import Path

import numpy
import pytest
import torch
from PIL import Image
from processes import in_process

from mim_mm.cost import work_of
from mim_mm.recipe_facts import downstream
from mim_mm.registry import MODELS
from mim_mm.transfer import load_chain
from mim_mm.transfer.identity import resolved_config
from mim_mm.transfer.sweep.grid import load_sweep, write_point

ROOT = Path(__file__).resolve().parents[2]
ARCH = dict(embed_dims=32, num_layers=3, num_heads=2, feedforward_channels=64)

MLP = [f'{part}.{kind}' for part in ('ln2', 'ffn.layers.0.0', 'ffn.layers.1') for kind in ('weight', 'bias')]


@pytest.fixture
def files(tmp_path, monkeypatch):
    """The two files of the document, in the current folder."""
    text = (ROOT / 'docs/transfer.md').read_text().split('## Partial fine-tuning')[1].split('\n## ')[0]
    for name, code in re.findall(r'```python\n# (\w+\.py)\n(.*?)```', text, re.S):
        (tmp_path / name).write_text(code)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_documented_sweep_sets_blocks_and_epochs(files):
    chain = files / 'partial_chain.py'
    chain.write_text(re.sub("'work_dirs.*pth'", "'c.pth'", chain.read_text()))
    (files / 'c.pth').touch()
    sweep = load_sweep('partial_sweep.py', files / 'work')
    assert sweep.axes == ('tuned_blocks', 'max_epochs') and sweep.x == 'tuned_blocks' and len(sweep.points) == 27
    found = {}
    for point in sweep.points:
        stage = load_chain(write_point(sweep, point))['finetune']
        cfg = resolved_config(stage.config, stage.options, stage.seed)
        found[point.values['tuned_blocks'], point.values['max_epochs']] = cfg
        assert cfg.train_cfg.max_epochs == point.values['max_epochs'] and cfg.model.type == 'mim_mm.PartialFineTuning'
    assert {x: found[x, 50].model.tuned_blocks for x, _ in found} == {
        0: 0, 0.5: 0.5, 1: 1, 2: 2, 4: 4, 6: 6, 8: 8, 10: 10, 12: 'all'
    }  # fmt: skip
    words = {x: downstream(found[x, 50])['tuned'] for x in (0, 0.5, 1, 4, 12)}
    assert words == {0: 'no block tuned', 0.5: 'half a block tuned', 1: '1 block tuned', 4: '4 blocks tuned', 12: None}
    assert downstream(resolved_config(ROOT / 'configs/finetune/vitb_finetune_100e.py', {}, 0))['tuned'] is None


def test_the_plan_counts_what_is_tuned():
    """By hand, width D = 64: a block has 12 D^2 weights and 13 D others, its MLP 8 D^2 and 5 D, and its norm 2 D."""
    cfg, other = (
        resolved_config(ROOT / f'configs/finetune/{name}_100e.py', {'model.head.in_channels': 64}, 0)
        for name in ('vitb_partial', 'vitb_finetune')
    )
    arch = dict(embed_dims=64, num_layers=3, num_heads=2, feedforward_channels=256)
    cfg.model.backbone.arch, other.model.backbone.arch = arch, arch
    whole = work_of(other.to_dict())
    head, norm, block, mlp = 65 * 1000, 2 * 64, 12 * 64**2 + 13 * 64, 8 * 64**2 + 7 * 64
    for number, tuned in ((0, 0), (0.5, mlp + norm), (2, 2 * block + norm)):
        cfg.model.tuned_blocks = number
        work = work_of(cfg.to_dict())
        assert work.kind == 'finetune' and work.trainable == head + tuned
        assert work.params == whole.params and work.forward == pytest.approx(whole.forward)
        # each product of a tuned block twice more, as the norm in front of the first one is tuned too
        products = {0: 0, 0.5: 8, 2: 24}[number] * 2 * 64**2 * 2 * 197
        attention = {0: 0, 0.5: 0, 2: 2}[number] * 2 * 2 * 2 * 197**2 * 64
        assert work.train - work.forward == pytest.approx(products + attention, rel=0.02, abs=4 * head)
        assert work.saved <= whole.saved
    assert work.model == 'fine-tune ViT 64x3/16 224px 2 blocks tuned' != whole.model


def test_a_tiny_run_freezes_what_it_says(tmp_path):
    noise = numpy.random.default_rng(0)
    for part in ('train', 'val'):
        for label, name in enumerate(('dark', 'light')):
            (tmp_path / 'data' / part / name).mkdir(parents=True)
            for i in range(4):
                pixels = noise.integers(0, 128, (32, 32, 3)) + 127 * label
                Image.fromarray(pixels.astype('uint8')).save(tmp_path / 'data' / part / name / f'{i}.png')
    backbone = MODELS.build(dict(type='mmpretrain.VisionTransformer', arch=ARCH, img_size=32, patch_size=8))
    torch.save(dict(state_dict={f'backbone.{k}': v for k, v in backbone.state_dict().items()}), tmp_path / 'made.pth')
    (tmp_path / 'small.py').write_text(f"""
_base_ = r'{ROOT}/configs/finetune/vitb_partial_100e.py'
model = dict(
    backbone=dict(arch=dict(_delete_=True, **{ARCH}), img_size=32, patch_size=8),
    head=dict(num_classes=2, in_channels=32))
steps = [dict(type='LoadImageFromFile'), dict(type='Resize', scale=(32, 32)), dict(type='PackInputs')]
loader = dict(batch_size=4, num_workers=0, persistent_workers=False, pin_memory=False, dataset=dict(pipeline=steps))
train_dataloader, val_dataloader = loader, loader
val_evaluator = dict(topk=(1,))
train_cfg = dict(max_epochs=1)
""")
    options = [f'init={tmp_path}/made.pth', 'model.tuned_blocks=0.5']
    words = '--work-dir', tmp_path / 'work', '--data-root', tmp_path / 'data', '--cfg-options', *options
    done = in_process('train.py', tmp_path / 'small.py', *words)
    assert done.returncode == 0, done.stderr
    given = torch.load(tmp_path / 'made.pth', weights_only=True)['state_dict']
    state = torch.load(tmp_path / 'work' / 'epoch_1.pth', weights_only=True)['state_dict']
    changed = {name for name, value in given.items() if name in state and not torch.equal(value, state[name])}
    assert changed == {f'backbone.layers.2.{name}' for name in MLP}
