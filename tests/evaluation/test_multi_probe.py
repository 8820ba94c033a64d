"""Many probes at once: features by hand, the joint run equals single ones, only heads learn."""

import copy

import pytest
import torch
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from mmpretrain.structures import DataSample

from mim_mm.engine.optim.probe_optim import ProbeHeadsConstructor
from mim_mm.evaluation.probes.multi_probe import MultiProbe, ProbeGrid
from mim_mm.evaluation.probes.probe_features import pool, read_blocks

ARCH = dict(embed_dims=32, num_layers=5, num_heads=2, feedforward_channels=64)
VIT = dict(type='mmpretrain.VisionTransformer', arch=ARCH, img_size=32, patch_size=16, drop_path_rate=0.5)
HIVIT = dict(type='mmpretrain.HiViT', arch=dict(embed_dims=32, depths=[1, 1, 8], num_heads=2), img_size=32)
GRID = dict(num_classes=3, blocks=(1, 4), pooling=('cls', 'mean', 'cls_mean'), norm=(False, True), lrs=(0.01, 0.1))


@pytest.fixture(autouse=True)
def scope():
    init_default_scope('mmpretrain')


def make(backbone=VIT, **grid):
    torch.manual_seed(3)
    model = MultiProbe(dict(backbone), {**GRID, **grid})
    for name, tensor in model.backbone.named_parameters():  # norms and positions that are not the identity
        torch.nn.init.normal_(tensor, std=0.3) if 'ln' in name or 'norm' in name or 'pos' in name else None
    return model


def samples(labels):
    return [DataSample().set_gt_label(int(label)) for label in labels]


def train(model, steps=6):
    cfg = dict(optimizer=dict(type='SGD', lr=2.0, momentum=0.9, fused=True), constructor='mim_mm.ProbeHeadsConstructor')
    wrapper = build_optim_wrapper(model, cfg)
    generator = torch.Generator().manual_seed(5)
    model.train()
    for _ in range(steps):
        images = torch.randn(6, 3, 32, 32, generator=generator)
        labels = torch.randint(0, 3, (6,), generator=generator)
        wrapper.update_params(model.loss(images, samples(labels))['loss'])
    return wrapper


# ---------------------------------------------------------------- features


def test_every_block_is_normalised_by_the_final_norm():
    backbone = make().backbone
    images = torch.randn(2, 3, 32, 32)
    x = backbone.patch_embed(images)[0]
    x = torch.cat([backbone.cls_token.expand(2, -1, -1), x], 1) + backbone.pos_embed
    expected = []
    for layer in backbone.layers:
        x = layer(x) if not layer.training else pytest.fail('the backbone must be in eval mode')
        centred = x - x.mean(-1, keepdim=True)
        variance = centred.square().mean(-1, keepdim=True)
        expected.append(centred / (variance + 1e-6).sqrt() * backbone.ln1.weight + backbone.ln1.bias)
    for count in (1, 4):
        found = read_blocks(backbone, images, count)
        assert len(found) == count
        for a, b in zip(found, expected[-count:]):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
    # what mmpretrain itself returns after its last block
    torch.testing.assert_close(found[-1][:, 0], backbone(images)[0])
    assert not backbone.layers[0]._forward_hooks, 'nothing stays attached'


def test_pooling_by_hand():
    tokens = [torch.arange(12.0).view(1, 3, 4) + 100 * i for i in range(4)]  # class token and two patches, width 4
    assert pool(tokens, 1, 'cls', 1).tolist() == [[300, 301, 302, 303]]
    assert pool(tokens, 2, 'cls', 1).tolist() == [[200, 201, 202, 203, 300, 301, 302, 303]]
    assert pool(tokens, 2, 'mean', 1).tolist() == [[206, 207, 208, 209, 306, 307, 308, 309]]
    assert pool(tokens, 2, 'cls_mean', 1).tolist() == [[200, 201, 202, 203, 300, 301, 302, 303, 306, 307, 308, 309]]
    assert pool(tokens, 1, 'mean', 0).tolist() == [[304, 305, 306, 307]]


def test_features_are_the_same_in_train_mode_and_only_heads_have_gradients():
    model = make()
    images = torch.randn(4, 3, 32, 32)
    frozen = [t.clone() for t in read_blocks(model.eval().backbone, images, 4)]
    before = {k: v.clone() for k, v in model.backbone.state_dict().items()}
    model.train()
    assert not any(m.training for m in model.backbone.modules()) and model.head.training
    for a, b in zip(read_blocks(model.backbone, images, 4), frozen):
        assert torch.equal(a, b)
    model.loss(images, samples([0, 1, 2, 0]))['loss'].backward()
    with_gradient = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert with_gradient == {n for n, _ in model.named_parameters() if n.startswith('head.linears.')}
    assert len(with_gradient) == 2 * 24
    train(model)
    for name, tensor in model.backbone.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_hivit_by_its_mean_tokens():
    with pytest.raises(ValueError, match=r"class token, which this HiViT lacks: set model.head.pooling=\['mean'\]"):
        make(HIVIT)
    model = make(HIVIT, pooling=('mean',)).eval()
    images = torch.randn(2, 3, 32, 32)
    tokens = read_blocks(model.backbone, images, 4)
    assert [t.shape for t in tokens] == [(2, 4, 32)] * 4
    torch.testing.assert_close(tokens[-1].transpose(1, 2).reshape(2, 32, 2, 2), model.backbone(images)[-1])
    train(model, steps=1)
    assert len(model(images)) == 8


def test_beit_with_and_without_its_final_norm():
    beit = dict(VIT, type='mmpretrain.BEiTViT')
    images = torch.randn(2, 3, 32, 32)
    for norm in (True, False):
        model = make(dict(beit, out_type='raw', final_norm=norm)).eval()
        torch.testing.assert_close(read_blocks(model.backbone, images, 1)[0], model.backbone(images)[0])


def test_encoder_may_run_in_bf16_and_heads_never_do():
    model, images = make().eval(), torch.randn(2, 3, 32, 32)
    plain = model(images)
    with torch.autocast('cpu', torch.bfloat16):  # what an optimizer wrapper does in training only
        wrapped = model(images)
    assert all(torch.equal(plain[name], wrapped[name]) for name in plain)
    model.autocast = True
    halved = model(images)
    for name, logits in halved.items():
        assert logits.dtype == torch.float32 and not torch.equal(logits, plain[name])
        torch.testing.assert_close(logits, plain[name], rtol=0.1, atol=0.05)


# ---------------------------------------------------------------- heads


def test_joint_training_is_training_each_alone():
    alone = [('cls', False, 0.1), ('cls_mean', True, 0.02), ('mean', True, 0.1)]
    joint = make(pooling=('cls', 'mean', 'cls_mean'), lrs=(0.02, 0.1))
    start = {k: v.clone() for k, v in joint.state_dict().items()}
    train(joint)
    for pooling, norm, lr in alone:
        single = make(blocks=(4,), pooling=(pooling,), norm=(norm,), lrs=(lr,))
        train(single)
        own = {k: v for k, v in single.state_dict().items() if k.startswith('head.')}
        assert len(own) == (5 if norm else 2)
        for name, tensor in own.items():
            torch.testing.assert_close(tensor, joint.state_dict()[name], rtol=0, atol=1e-7, msg=name)
            if name.endswith('weight'):
                assert (tensor - start[name]).abs().max() > 1e-3, 'it has learnt'


def test_a_diverging_head_does_not_disturb_the_others():
    calm = make(blocks=(1,), pooling=('cls',), norm=(False,), lrs=(0.01,))
    train(calm, steps=12)
    mixed = make(blocks=(1,), pooling=('cls',), norm=(False,), lrs=(0.01, 1e38))
    train(mixed, steps=12)
    wild = mixed.head.linears['last1_cls_lr1e+38'].weight
    assert not wild.isfinite().all()
    name = 'head.linears.last1_cls_lr0_01.weight'
    torch.testing.assert_close(mixed.state_dict()[name], calm.state_dict()[name], rtol=0, atol=1e-7)
    outputs = mixed.loss(torch.randn(2, 3, 32, 32), samples([0, 1]))
    assert outputs['lowest_ce'].isfinite() and outputs['loss'].isfinite()


def test_rates_and_start_of_the_heads():
    model = make()
    groups = train(model, steps=0).optimizer.param_groups
    assert [(g['heads'], g['lr']) for g in groups] == [
        ([f'last{b}_{p}{bn}_lr{lr}' for b in (1, 4) for p in ('cls', 'mean', 'cls_mean') for bn in ('', '_bn')], 2 * lr)
        for lr in (0.01, 0.1)
    ]
    for group in groups:
        assert [tuple(p.shape) for p in group['params'][::4]] == [(3, 32 * n) for n in (1, 1, 2, 4, 4, 5)]
        assert [tuple(p.shape) for p in group['params'][1::2]] == [(3,)] * 12
    wide = ProbeGrid(768, 100, blocks=(1,), pooling=('cls',))
    for linear in wide.linears.values():
        assert linear.weight.std().item() == pytest.approx(0.01, rel=0.02) and not linear.bias.any()
    assert len(wide.probes) == 26 and not list(wide.norms.parameters())


def test_heads_of_a_feature_share_memory_again_after_they_were_moved():
    model = make(blocks=(1,), pooling=('cls',), norm=(False,), lrs=(0.01, 0.1, 1.0)).eval()
    images = torch.randn(2, 3, 32, 32)
    linears = list(model.head.linears.values())
    feature = pool(read_blocks(model.backbone, images, 1), 1, 'cls', 1)

    def check():
        for found, linear in zip(model(images).values(), linears):
            torch.testing.assert_close(found, feature @ linear.weight.T + linear.bias, rtol=1e-5, atol=1e-6)
        return [linear.weight.untyped_storage().data_ptr() for linear in linears]

    first = check()
    assert len(set(first)) == 1
    model.double().float()  # as moving to another device does
    assert len({linear.weight.untyped_storage().data_ptr() for linear in linears}) == 3
    assert len(set(check())) == 1
    other = {k: torch.randn_like(v) if 'linears' in k else v for k, v in model.state_dict().items()}
    model.load_state_dict(other, assign=True)
    assert len(set(check())) == 1
    with torch.no_grad():
        linears[1].weight.add_(1)  # as an optimizer does
    check()
    rest = copy.deepcopy(model)
    model.load_state_dict({k: torch.zeros_like(v) for k, v in other.items()})
    assert all(linear.weight.any() for linear in rest.head.linears.values())


def test_gradients_of_the_heads_by_hand():
    model = make(blocks=(1,), pooling=('cls',), norm=(False,), lrs=(0.01, 0.1))
    images, labels = torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 2, 0])
    model.loss(images, samples(labels))['loss'].backward()
    feature = pool(read_blocks(model.backbone, images, 1), 1, 'cls', 1)
    for linear in model.head.linears.values():
        wrong = (feature @ linear.weight.T + linear.bias).softmax(1) - torch.eye(3)[labels]
        torch.testing.assert_close(linear.weight.grad, wrong.T @ feature / 4, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(linear.bias.grad, wrong.mean(0), rtol=1e-5, atol=1e-6)


def test_loss_is_the_mean_over_heads():
    model = make().eval()
    images, labels = torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 2, 0])
    each = [torch.logsumexp(z, 1).sub(z[range(4), labels]).mean() for z in model(images).values()]
    found = model.loss(images, samples(labels))
    assert found['loss'].item() == pytest.approx(sum(each).item() / len(each), rel=1e-5)
    assert found['lowest_ce'].item() == pytest.approx(min(each).item(), rel=1e-5)
    answers = model.predict(images, samples(labels))
    for sample, *logits in zip(answers, *model(images).values()):
        assert sample.probe_pred.tolist() == [int(z.argmax()) for z in logits]


@pytest.mark.parametrize(
    'grid, message',
    [
        (dict(blocks=(0,)), r'head.blocks=\[0\]: positive'),
        (dict(blocks=(6,)), 'last 6 blocks, the backbone has 5'),
        (dict(pooling=('max',)), r"head.pooling=\['max'\]: use"),
        (dict(lrs=(0.1, 0.1)), 'each once'),
        (dict(lrs=()), 'at least one'),
        (dict(norm=(1,)), 'use False and True'),
    ],
)
def test_grids_that_are_refused(grid, message):
    with pytest.raises(ValueError, match=message):
        make(**grid)


def test_optimizers_and_backbones_that_are_refused():
    sgd = dict(type='SGD', lr=4.0)
    with pytest.raises(ValueError, match='clips by the norm over all heads'):
        ProbeHeadsConstructor(dict(optimizer=sgd, clip_grad=dict(max_norm=1)))
    with pytest.raises(ValueError, match='leave it out'):
        ProbeHeadsConstructor(dict(optimizer=sgd), dict(norm_decay_mult=0.0))
    with pytest.raises(TypeError, match='Linear has no param_groups'):
        ProbeHeadsConstructor(dict(optimizer=sgd))(torch.nn.Linear(2, 2))
    thawed = make()
    thawed.backbone.cls_token.requires_grad = True
    with pytest.raises(ValueError, match='backbone.cls_token'):
        ProbeHeadsConstructor(dict(optimizer=sgd))(thawed)
    with pytest.raises(ValueError, match='SwinTransformer cannot be probed by block'):
        make(dict(type='mmpretrain.SwinTransformer', arch='tiny', img_size=64))
