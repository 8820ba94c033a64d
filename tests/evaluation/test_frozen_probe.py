"""The frozen features against plain restatements, and that training touches the head alone."""

import pytest
import torch
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from mmpretrain.structures import DataSample

from mim_mm.evaluation.probes.attentive_pool import AttentivePool
from mim_mm.registry import MODELS

ARCH = dict(embed_dims=32, num_layers=5, num_heads=2, feedforward_channels=64)
VIT = dict(type='mmpretrain.VisionTransformer', arch=ARCH, img_size=32, patch_size=16, drop_rate=0.3,
           drop_path_rate=0.5)  # fmt: skip
BEIT = dict(type='mmpretrain.BEiTViT', arch=ARCH, img_size=32, patch_size=16, use_rel_pos_bias=False,
            use_shared_rel_pos_bias=True, drop_path_rate=0.5)  # fmt: skip
HIVIT = dict(type='mmpretrain.HiViT', arch=dict(embed_dims=32, depths=[1, 1, 8], num_heads=2), img_size=32)
ATTENTIVE = dict(type='mim_mm.AttentivePool', embed_dims=32, num_heads=4)


@pytest.fixture(autouse=True)
def scope():
    init_default_scope('mmpretrain')


def make(width, backbone=VIT, **options):
    head = dict(type='LinearClsHead', num_classes=3, in_channels=width, loss=dict(type='CrossEntropyLoss'))
    model = MODELS.build(dict(type='mim_mm.FrozenProbe', backbone=dict(backbone), head=head, **options))
    model.init_weights()
    for name, tensor in model.backbone.named_parameters():  # norms and positions that are not the identity
        if any(part in name for part in ('ln', 'pos', 'bias', 'cls')):
            torch.nn.init.normal_(tensor, std=0.3)
    return model


def samples(labels):
    return [DataSample().set_gt_label(int(label)) for label in labels]


def outputs_of_blocks(backbone, images):
    """Every block's output, by the definition of the network."""
    x = backbone.patch_embed(images)[0]
    x = torch.cat([backbone.cls_token.expand(len(x), -1, -1), x], 1)
    x = x if backbone.pos_embed is None else x + backbone.pos_embed
    shared = (backbone.rel_pos_bias(),) if getattr(backbone, 'rel_pos_bias', None) is not None else ()
    found = []
    for layer in backbone.layers:
        x = layer(x, *shared)
        found.append(x)
    return found


def normalised(x, norm):
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + norm.eps).sqrt() * norm.weight + norm.bias


@torch.no_grad()
@pytest.mark.parametrize('blocks', [[-1], [-4, -3, -2, -1], [1, 3]])
@pytest.mark.parametrize('norm', [True, False])
def test_features_by_definition(blocks, norm):
    images = torch.randn(3, 3, 32, 32)
    for pooling in ('cls', 'mean', 'cls_mean'):
        model = make(32 * (len(blocks) + (pooling == 'cls_mean')), blocks=blocks, norm=norm, pool=pooling)
        states = outputs_of_blocks(model.backbone, images)
        chosen = [states[index] for index in blocks]
        if norm:  # of each block, not of the last alone
            chosen = [normalised(x, model.backbone.ln1) for x in chosen]
        wanted = dict(
            cls=[x[:, 0] for x in chosen],
            mean=[x[:, 1:].mean(1) for x in chosen],
            cls_mean=[*(x[:, 0] for x in chosen), chosen[-1][:, 1:].mean(1)],
        )[pooling]
        (found,) = model.extract_feat(images)
        torch.testing.assert_close(found, torch.cat(wanted, 1), atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(model(images), found @ model.head.fc.weight.T + model.head.fc.bias)


@torch.no_grad()
def test_the_last_four_class_tokens_stand_in_the_order_of_the_blocks():
    images = torch.randn(2, 3, 32, 32)
    joined = make(4 * 32, blocks=[-4, -3, -2, -1]).features
    (feature, model) = joined(images), joined.__self__
    for place, index in enumerate((1, 2, 3, 4)):  # of five blocks; DINO's intermediate_output has the earliest first
        token = normalised(outputs_of_blocks(model.backbone, images)[index][:, 0], model.backbone.ln1)
        torch.testing.assert_close(feature[:, place * 32 : place * 32 + 32], token, atol=1e-5, rtol=1e-4)


def test_dinos_interleaved_weights_fit_after_the_documented_permutation():
    cls, mean, weight = torch.randn(4, 8), torch.randn(4, 8), torch.randn(3, 16)
    theirs = torch.stack([cls, mean], -1).flatten(1) @ weight.T
    ours = torch.cat([cls, mean], 1) @ weight.unflatten(1, (-1, 2)).transpose(1, 2).flatten(1).T
    torch.testing.assert_close(ours, theirs)


@torch.no_grad()
def test_beits_intermediate_block():
    images = torch.randn(2, 3, 32, 32)
    model = make(64, dict(BEIT, final_norm=False), blocks=[2], norm=False, pool='cls_mean')
    x = outputs_of_blocks(model.backbone, images)[2]
    torch.testing.assert_close(model.features(images), torch.cat([x[:, 0], x[:, 1:].mean(1)], 1))


@torch.no_grad()
def test_attentive_pool_by_definition():
    pool = AttentivePool(embed_dims=6, num_heads=2)
    for parameter in pool.parameters():
        torch.nn.init.normal_(parameter)
    tokens = torch.randn(5, 4, 6)
    query = pool.to_q(normalised(pool.query[0, 0], pool.norm_q))
    answers = []
    for image in tokens:
        keys, values = normalised(image, pool.norm_k) @ pool.to_k.weight.T, pool.to_v(normalised(image, pool.norm_v))
        heads = []
        for part in (slice(0, 3), slice(3, 6)):
            scores = torch.stack([(query[part] * key[part]).sum() / 3**0.5 for key in keys]).exp()
            heads.append(sum(s * v[part] for s, v in zip(scores, values)) / scores.sum())
        answers.append(pool.proj(torch.cat(heads)))
    answers = torch.stack(answers)
    wanted = (answers - answers.mean(0)) / (answers.var(0, unbiased=False) + 1e-5).sqrt()
    torch.testing.assert_close(pool((None, tokens))[0], wanted, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(pool.bn.running_mean, 0.1 * answers.mean(0))
    assert not [name for name, _ in pool.named_parameters() if name.startswith('bn')]


def test_attention_starts_uniform():
    pool = AttentivePool(embed_dims=6, num_heads=2)
    pool.init_weights()
    torch.nn.init.zeros_(pool.to_q.bias)
    pool.eval()
    tokens = torch.randn(3, 4, 6)
    mean = pool.proj(pool.to_v(pool.norm_v(tokens)).mean(1))
    torch.testing.assert_close(pool((tokens,))[0], mean / (1 + 1e-5) ** 0.5)
    with pytest.raises(ValueError, match='num_heads=4 must divide embed_dims=6'):
        AttentivePool(6, 4)


@pytest.mark.parametrize(
    'backbone, width, options, trained',
    [
        (VIT, 128, dict(blocks=[-4, -3, -2, -1]), ('head',)),
        (VIT, 64, dict(pool='cls_mean'), ('head',)),
        (BEIT, 64, dict(blocks=[2], norm=False, pool='cls_mean'), ('head',)),
        (VIT, 32, dict(pool='tokens', neck=ATTENTIVE), ('head', 'neck')),
        (HIVIT, 32, dict(norm=False, pool='mean'), ('head',)),
    ],
)
def test_training_changes_the_head_alone_and_features_stay(backbone, width, options, trained):
    model = make(width, backbone, **options)
    images, labels = torch.randn(6, 3, 32, 32), torch.tensor([0, 1, 2, 0, 1, 2])
    wrapper = build_optim_wrapper(model, dict(optimizer=dict(type='SGD', lr=1.0, momentum=0.9, nesterov=True),
                                              constructor='mim_mm.LayerDecayConstructor'))  # fmt: skip
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.eval()
    quiet = model.features(images)
    model.train()
    assert model.head.training and not any(m.training for m in model.backbone.modules())
    for _ in range(2):
        assert torch.equal(model.features(images), quiet), 'no drop path, no dropout, in train mode'
        wrapper.update_params(model.loss(images, samples(labels))['loss'])
    assert not quiet.requires_grad
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert {name.split('.')[0] for name in changed} == set(trained)
    assert {n for n, p in model.named_parameters() if p.requires_grad} <= changed | {'neck.norm_k.bias'}


@pytest.mark.parametrize(
    'width, options, message',
    [
        (32, dict(blocks=[5]), r'blocks=\[5\] must be ascending.*within the 5'),
        (64, dict(blocks=[3, 1]), 'must be ascending'),
        (64, dict(blocks=[4, -1]), 'must be ascending, each once'),
        (32, dict(blocks=[]), 'must be ascending'),
        (32, dict(pool='max'), "pool='max' on 1"),
        (32, dict(blocks=[1, 2], pool='tokens'), "pool='tokens' on 2"),
        (32, dict(pool='cls_mean'), 'head.in_channels=32, the feature has 64: set it to 64'),
        (32, dict(backbone=dict(VIT, final_norm=False)), 'no final norm: set model.norm=False'),
        (32, dict(backbone=HIVIT, norm=False), "needs a class token, which this HiViT lacks: use pool='mean'"),
    ],
)
def test_refusals(width, options, message):
    with pytest.raises(ValueError, match=message):
        make(width, **options)
    with pytest.raises(ValueError, match="stage='head'"):
        make(32).extract_feat(torch.zeros(1, 3, 32, 32), stage='head')
