"""Scores and deltas under bf16 autocast: not rounded to 8 bits, and the layers before them still in bf16."""

import pytest
import torch
from mmengine.config import Config
from recipe_table import CONFIGS

from mim_mm.registry import MODELS

LEVELS = [64, 32]


def rpn(kind, seed=0):
    torch.manual_seed(seed)
    anchors = dict(type='AnchorGenerator', scales=[8], ratios=[0.5, 1.0, 2.0], strides=[4, 8])
    head = MODELS.build(dict(type=kind, in_channels=16, feat_channels=16, anchor_generator=anchors, _scope_='mmdet'))
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return head


def test_rpn_scores_and_deltas_are_fp32_of_a_bf16_trunk():
    ours, upstream = rpn('mim_mm.FullPrecisionRPNHead'), rpn('RPNHead')
    upstream.load_state_dict(ours.state_dict())
    maps = tuple(torch.randn(2, 16, s, s) for s in LEVELS)
    with torch.autocast('cpu', torch.bfloat16):
        found, rounded = ours(maps), upstream(maps)
        trunk = [torch.relu(upstream.rpn_conv(m)) for m in maps]
    assert all(t.dtype == torch.bfloat16 for t in trunk)
    for part, layer in enumerate((ours.rpn_cls, ours.rpn_reg)):
        for level, features in enumerate(trunk):
            exact = torch.nn.functional.conv2d(features.float(), layer.weight, layer.bias)
            assert found[part][level].dtype == torch.float32
            torch.testing.assert_close(found[part][level], exact)
    # The trap is real: among 24,576 anchors upstream tells apart a few hundred scores.
    assert rounded[0][0].dtype == torch.bfloat16
    assert len(rounded[0][0].unique()) < 3000 < len(found[0][0].unique())
    (sum(p.sum() for part in found for p in part)).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in ours.parameters())


def test_without_autocast_it_is_upstreams_head():
    ours, upstream = rpn('mim_mm.FullPrecisionRPNHead'), rpn('RPNHead')
    maps = tuple(torch.randn(1, 16, s, s) for s in LEVELS)
    for mine, theirs in zip(ours(maps), upstream(maps)):
        assert all(torch.equal(a, b) for a, b in zip(mine, theirs))


def test_the_linear_layer_is_not_autocast():
    layer = MODELS.build(dict(type='mim_mm.FullPrecisionLinear', in_features=8, out_features=3))
    x = torch.randn(5, 8).bfloat16().requires_grad_()
    with torch.autocast('cpu', torch.bfloat16):
        out = layer(x)
    assert out.dtype == torch.float32
    torch.testing.assert_close(out, x.float() @ layer.weight.T + layer.bias)
    out.sum().backward()
    assert x.grad is not None


@pytest.mark.parametrize('path', sorted((CONFIGS / 'coco').glob('*.py')), ids=lambda p: p.stem)
def test_every_recipe_in_bf16_has_them(path):
    model = Config.fromfile(path).model
    assert model.rpn_head.type == 'mim_mm.FullPrecisionRPNHead'
    head = model.roi_head.bbox_head
    assert head.cls_predictor_cfg.type == head.reg_predictor_cfg.type == 'mim_mm.FullPrecisionLinear'
