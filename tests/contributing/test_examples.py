"""The examples of CONTRIBUTING.md do what they say, from a package of their own beside this one."""

import importlib
import re
import runpy
import sys
from pathlib import Path

import pytest
import torch
from forget import forget
from mmengine.config import Config
from mmengine.optim import OptimWrapper
from mmpretrain.models import DistilledVisionTransformer

from mim_mm import registry
from mim_mm.clock import Clock
from mim_mm.encoders import encoder_of
from mim_mm.registry import MODELS

PAGE = Path(__file__).resolve().parents[2] / 'CONTRIBUTING.md'
EXAMPLES = dict(re.findall(r'^```python\n# (mine/\w+\.py)\n(.*?)^```$', PAGE.read_text(), re.M | re.S))
SMALL = dict(
    type='mmpretrain.DistilledVisionTransformer', img_size=32, patch_size=8,
    arch=dict(embed_dims=32, num_layers=2, num_heads=4, feedforward_channels=64),
)  # fmt: skip


@pytest.fixture(scope='module')
def mine(tmp_path_factory):
    """The folder that holds the package; what its modules register is forgotten afterwards."""
    folder = tmp_path_factory.mktemp('outside')
    (folder / 'mine').mkdir()
    for name, text in EXAMPLES.items():
        (folder / name).write_text(text)
    sys.path.insert(0, str(folder))
    for module in ('columns', 'distilled', 'max_pool', 'mean_colour'):
        importlib.import_module(f'mine.{module}')
    yield folder
    sys.path.remove(str(folder))
    forget('mine')


def test_each_example_is_short():
    assert len(EXAMPLES) == 6
    for name, text in EXAMPLES.items():
        code = [line for line in text.splitlines() if line.strip() and not line.startswith(('import', 'from'))]
        assert len(code) <= 20, f'{name} has {len(code)} lines'


def test_the_masker_hides_every_other_column(mine):
    masker = MODELS.build(dict(type='ColumnMasking'))
    plan = masker(torch.zeros(40, 16, 8), torch.Generator().manual_seed(0))
    rows = plan.mask[:, 0].unflatten(1, (4, 4))
    even, odd = torch.tensor([True, False, True, False]), torch.tensor([False, True, False, True])
    kinds = [(rows == columns).flatten(1).all(1) for columns in (even, odd)]
    assert (kinds[0] ^ kinds[1]).all() and all(kind.any() for kind in kinds)
    assert [tuple(count) for count in masker.counts(16)] == [(8, 8, 0)]


def test_the_family_encodes_as_the_backbone_does(mine):
    options = {key: value for key, value in SMALL.items() if key != 'type'}
    backbone = DistilledVisionTransformer(**options, out_type='raw')
    backbone.eval()
    for parameter in backbone.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    encoder, images = encoder_of(backbone), torch.randn(3, 3, 32, 32)
    wanted = backbone(images)[-1]
    prefix, patches = encoder.encode_whole(images)
    torch.testing.assert_close(torch.cat([prefix, patches], dim=1), wanted)
    order = torch.stack([torch.randperm(16) for _ in images])[:, None]
    found = encoder.encode(encoder.embed(images), order)[:, 2:]
    torch.testing.assert_close(found, wanted[:, 2:].gather(1, order[:, 0, :, None].expand(-1, -1, 32)))


PRETRAINING = """
_base_ = 'mim_mm::demo/pretrain_mae.py'
custom_imports = dict(imports=['mim_mm', 'mine.columns', 'mine.distilled', 'mine.mean_colour'])
model = dict(
    _delete_=True, _scope_='mim_mm', type='MeanColour', backbone={backbone}, masker=dict(type='ColumnMasking'),
    data_preprocessor=dict(type='ImgDataPreprocessor', mean=[110.0] * 3, std=[64.0] * 3))
"""


def test_the_method_learns_with_the_masker_on_the_backbone(mine):
    (mine / 'mine/pretrain.py').write_text(PRETRAINING.format(backbone=SMALL))
    model = MODELS.build(Config.fromfile(mine / 'mine/pretrain.py').model)
    model.init_weights()
    wrapper = OptimWrapper(torch.optim.AdamW(model.parameters(), lr=1e-2))
    images = (256 * torch.rand(8, 3, 1, 1) + 10 * torch.randn(8, 3, 32, 32)).clamp(0, 255).byte()
    found = []
    for step in range(30):
        model.begin_step(Clock(seed=0, step=step, epoch=0, share=step / 30))
        found.append(model.train_step(dict(inputs=images), wrapper))
        model.end_step()
    assert set(found[0]) == {'loss', 'spread'} and not found[0]['spread'].requires_grad
    assert found[-1]['loss'] < 0.5 * found[0]['loss']


def test_its_cost_is_counted(mine, monkeypatch, capsys):
    (mine / 'mine/pretrain.py').write_text(PRETRAINING.format(backbone=SMALL))
    command = ['plan.py', str(mine / 'mine/pretrain.py'), '--gpus', '1', '--gpu', 'h100', '--images', 'imagenet=1000']
    monkeypatch.setattr(sys, 'argv', command)
    runpy.run_path(str(PAGE.parent / 'tools' / 'plan.py'), run_name='__main__')
    assert 'MeanColour' in capsys.readouterr().out


def test_the_probe_reads_the_largest_values(mine):
    cfg = Config.fromfile(mine / 'mine/max_probe.py')
    cfg.model.backbone = SMALL
    cfg.model.head.update(in_channels=32, num_classes=5)
    probe = MODELS.build(dict(cfg.model, _scope_='mmpretrain'))
    images = torch.randn(2, 3, 32, 32)
    (found,) = probe.extract_feat(images)
    block = probe.backbone.layers[0]
    kept = []
    block.register_forward_hook(lambda module, inputs, output: kept.append(output))
    probe.backbone(images)
    torch.testing.assert_close(found, probe.backbone.ln1(kept[0]).amax(dim=1))


def test_the_detector_takes_the_maps_of_its_backbone(mine):
    cfg = Config.fromfile(mine / 'mine/mask_rcnn_r18.py')
    detector = registry.MODELS.build(dict(cfg.model, _scope_='mmdet'))
    maps = detector.extract_feat(torch.randn(1, 3, 64, 64))
    assert [tuple(level.shape) for level in maps] == [(1, 256, side, side) for side in (16, 8, 4, 2, 1)]
