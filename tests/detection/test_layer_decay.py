"""Learning-rate scales and weight decay of every parameter, against the published rules."""

import mmpretrain.models  # noqa: F401
import pytest
import torch
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope

from mim_mm.registry import MODELS

ARCH = dict(embed_dims=16, num_layers=12, num_heads=2, feedforward_channels=32)
RATE = 0.7


def classifier():
    init_default_scope('mmpretrain')
    return MODELS.build(
        dict(
            type='mmpretrain.ImageClassifier',
            backbone=dict(
                type='mmpretrain.VisionTransformer',
                arch=ARCH,
                img_size=16,
                patch_size=8,
                out_type='avg_featmap',
                final_norm=False,
            ),
            head=dict(type='mmpretrain.LinearClsHead', num_classes=3, in_channels=16),
        )
    )


def detector():
    from mim_mm.detection.detectors import MIMMaskRCNN

    init_default_scope('mmdet')

    class Small(MIMMaskRCNN):  # the parts that the constructor looks at, without a detector's 40 lines of config
        def __init__(self):
            torch.nn.Module.__init__(self)
            backbone = dict(
                type='mim_mm.WindowedViT',
                arch=ARCH,
                img_size=16,
                pretrain_img_size=16,
                patch_size=8,
                rel_pos='decomposed',
            )
            self.backbone = MODELS.build(backbone)
            self.neck = MODELS.build(dict(type='mim_mm.SimplePyramid', in_channels=16, out_channels=8))

    return Small()


def optimizer_of(model, **paramwise):
    cfg = dict(
        type='OptimWrapper',
        optimizer=dict(type='AdamW', lr=1.0, weight_decay=0.1),
        constructor='mim_mm.LayerDecayConstructor',
        paramwise_cfg=paramwise,
    )
    return build_optim_wrapper(model, cfg).optimizer


def settings(model, optimizer):
    group_of = {id(p): g for g in optimizer.param_groups for p in g['params']}
    return {name: group_of[id(p)] for name, p in model.named_parameters()}


@pytest.mark.parametrize('make', [classifier, detector])
def test_scales(make):
    model = make()
    found = settings(model, optimizer_of(model, layer_decay_rate=RATE))
    wanted = {
        'backbone.patch_embed.projection.weight': RATE**13,
        'backbone.pos_embed': RATE**13,
        'backbone.layers.0.attn.qkv.weight': RATE**12,
        'backbone.layers.11.ffn.layers.1.bias': RATE,
    }
    for name, scale in wanted.items():
        assert found[name]['lr'] == pytest.approx(scale), name
    last = 'head.fc.weight' if make is classifier else 'neck.levels.0.1.weight'
    assert found[last]['lr'] == 1.0


def test_scales_equal_mmpretrains_constructor():
    from mmpretrain.engine.optimizers import LearningRateDecayOptimWrapperConstructor

    model = classifier()
    ours = settings(
        model,
        optimizer_of(model, layer_decay_rate=RATE, norm_decay_mult=0.0, bias_decay_mult=0.0, flat_decay_mult=0.0),
    )
    theirs = LearningRateDecayOptimWrapperConstructor(
        dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=1.0, weight_decay=0.1)),
        dict(
            layer_decay_rate=RATE,
            custom_keys={k: dict(decay_mult=0.0) for k in ('.ln', '.bias', '.cls_token', '.pos_embed')},
        ),
    )(model).optimizer
    theirs = settings(model, theirs)
    for name, group in ours.items():
        assert group['lr'] == pytest.approx(theirs[name]['lr']), name
        assert group['weight_decay'] == theirs[name]['weight_decay'], name


def test_no_decay_set_of_a_classifier():
    model = classifier()
    found = settings(
        model,
        optimizer_of(model, layer_decay_rate=RATE, norm_decay_mult=0.0, bias_decay_mult=0.0, flat_decay_mult=0.0),
    )
    free = {name for name, group in found.items() if group['weight_decay'] == 0}
    assert free == {n for n, p in model.named_parameters() if p.ndim <= 1} | {
        'backbone.cls_token',
        'backbone.pos_embed',
    }


def test_no_decay_set_of_a_detector_finds_names_behind_the_prefix():
    model = detector()
    found = settings(model, optimizer_of(model, layer_decay_rate=RATE, norm_decay_mult=0.0))
    free = {name for name, group in found.items() if group['weight_decay'] == 0}
    norms = {
        f'{name}.{p}'
        for name, m in model.named_modules()
        if isinstance(m, torch.nn.LayerNorm)
        for p, _ in m.named_parameters(recurse=False)
    }
    assert free == norms | {'backbone.pos_embed'}
    assert found['backbone.layers.0.attn.rel_pos_h']['weight_decay'] == pytest.approx(0.1)
    assert found['backbone.layers.0.attn.rel_pos_h']['lr'] == pytest.approx(RATE**12)


def test_groups_are_merged_and_hold_each_parameter_once():
    model = classifier()
    groups = optimizer_of(model, layer_decay_rate=RATE, flat_decay_mult=0.0).param_groups
    keys = [(g['lr'], g['weight_decay']) for g in groups]
    assert len(keys) == len(set(keys)) == 28
    grouped = [id(p) for g in groups for p in g['params']]
    assert sorted(grouped) == sorted(id(p) for p in model.parameters())


def test_custom_keys_and_frozen_parameters():
    model = classifier()
    model.backbone.requires_grad_(False)
    optimizer = optimizer_of(model, custom_keys={'head': dict(lr_mult=2.0), 'head.fc.bias': dict(lars_exclude=True)})
    found = {tuple(p.shape): g for g in optimizer.param_groups for p in g['params']}
    assert set(found) == {(3, 16), (3,)}
    assert found[(3, 16)]['lr'] == 2.0 and 'lars_exclude' not in found[(3, 16)]
    assert found[(3,)]['lr'] == 1.0 and found[(3,)]['lars_exclude'] is True


def test_lars_step_bias_is_momentum_sgd_and_weight_has_trust_ratio():
    model = torch.nn.Linear(2, 2)
    init_default_scope('mmpretrain')
    cfg = dict(
        optimizer=dict(type='LARS', lr=0.5, momentum=0.9, weight_decay=0.0),
        constructor='mim_mm.LayerDecayConstructor',
        paramwise_cfg=dict(custom_keys={'bias': dict(lars_exclude=True)}),
    )
    optimizer = build_optim_wrapper(model, cfg).optimizer
    weight, bias = model.weight.detach().clone(), model.bias.detach().clone()
    grads = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([1.0, -1.0])
    momentum_weight = momentum_bias = 0
    for _ in range(2):
        model.weight.grad, model.bias.grad = grads[0].clone(), grads[1].clone()
        optimizer.step()
        trust = 0.001 * weight.norm() / grads[0].norm()
        momentum_weight = 0.9 * momentum_weight + 0.5 * trust * grads[0]
        momentum_bias = 0.9 * momentum_bias + 0.5 * grads[1]
        weight, bias = weight - momentum_weight, bias - momentum_bias
    torch.testing.assert_close(model.weight.data, weight)
    torch.testing.assert_close(model.bias.data, bias)


def test_silent_misconfigurations_are_refused():
    with pytest.raises(ValueError, match='unknown keys'):
        optimizer_of(classifier(), layer_decay=0.65)
    with pytest.raises(NotImplementedError, match='get_layer_depth'):
        optimizer_of(torch.nn.Linear(2, 2), layer_decay_rate=RATE)

    from mmpretrain.models.backbones import HiViT  # its get_layer_depth overlooks its own blocks

    hivit = HiViT(arch=dict(embed_dims=32, depths=[1, 1, 2], num_heads=2), img_size=32)
    with pytest.raises(ValueError, match='no effect'):
        optimizer_of(hivit, layer_decay_rate=RATE)
