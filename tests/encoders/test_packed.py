"""Sequences of different lengths, packed: against running each part of each image alone, through the dense path."""

from dataclasses import replace

import pytest
import torch
from losses_restated import naive_consistency
from tiny import HIVIT, VIT, build, images, total_loss
from torch import nn

from mim_mm.encoders import encoder_of, packed
from mim_mm.encoders.packed import BACKENDS, attend, attention_backend, drop_path, pack_plan, pack_tokens
from mim_mm.losses import reconstruction_loss
from mim_mm.masking import MaskPlan
from mim_mm.registry import MODELS

BACKBONES = pytest.mark.parametrize('backbone', [VIT, HIVIT], ids=['vit', 'hivit'])
ON_CPU = pytest.mark.parametrize('attention', ['by_length', 'padded'])
# Three images of 16 patches: one whole, one with parts absent, one whose part sees everything.
LENGTHS = [[4, 1, 7], [9, 0, 0], [4, 16, 0]]


def ragged_plan(lengths=LENGTHS, seed=0):
    order = torch.rand(len(lengths), len(lengths[0]), 16, generator=torch.Generator().manual_seed(seed)).argsort(dim=-1)
    return MaskPlan.from_lengths(order, lengths)


def fixed(plan):
    """A masker that returns this plan."""
    return lambda tokens, generator=None: plan


def gradients(model, value):
    model.zero_grad()
    value.backward()
    return {name: param.grad.clone() for name, param in model.named_parameters() if param.grad is not None}


def assert_same_gradients(found, wanted):
    assert found.keys() == wanted.keys() and len(found) > 20
    for name, grad in wanted.items():
        torch.testing.assert_close(found[name], grad, rtol=1e-4, atol=1e-5, msg=lambda m, name=name: f'{name}: {m}')


def with_layer_scale(backbone):
    """Blocks with a LayerScale whose factors differ, so that a forgotten one shows."""
    model = build('MAE', backbone=dict(backbone, layer_scale_init_value=0.5))
    gammas = [param for name, param in model.backbone.named_parameters() if 'gamma' in name]
    assert gammas
    for gamma in gammas:
        nn.init.uniform_(gamma, 0.5, 2)
    return model


@BACKBONES
@ON_CPU
def test_every_image_gets_what_it_would_get_alone(backbone, attention):
    model, plan, x = with_layer_scale(backbone), ragged_plan(), images()
    weights = torch.randn(3, 3, 16, 192)
    with attention_backend(attention):
        together = model.spread(model.predict_hidden(model.encoder.embed(x), plan), plan)
    total, seen = 0.0, 0
    for b, image_lengths in enumerate(LENGTHS):
        for k, length in enumerate(image_lengths):
            if not length:
                assert (together[b, k] == 0).all()
                continue
            alone = MaskPlan(plan.order[b : b + 1, k : k + 1], (length,))
            tokens = model.encoder.embed(x[b : b + 1])
            pred = model.predict_hidden(tokens, alone)
            assert pred.shape == (1, 1, 16 - length, 192)
            hidden = plan.order[b, k, length:]
            torch.testing.assert_close(together[b, k, hidden], pred[0, 0], rtol=1e-5, atol=1e-5)
            total, seen = total + (pred[0, 0] * weights[b, k, hidden]).sum(), seen + 1
    assert seen == 6
    wanted = gradients(model, total / 100)
    assert_same_gradients(gradients(model, (together * weights).sum() / 100), wanted)


@BACKBONES
def test_pixels_that_only_other_images_or_no_part_sees_do_not_matter(backbone):
    model, plan, x = build('MAE', backbone=backbone), ragged_plan(), images()
    first = model.predict_hidden(model.encoder.embed(x), plan)
    changed = x.clone()
    changed[0] = 9.0
    second = model.predict_hidden(model.encoder.embed(changed), plan)
    of_first_image = int((plan.hidden_index() < 3 * 16).sum())
    assert not torch.allclose(first[:of_first_image], second[:of_first_image])
    torch.testing.assert_close(first[of_first_image:], second[of_first_image:])


@BACKBONES
@ON_CPU
@pytest.mark.parametrize('masker', ['RandomMasking', 'ParallelMasking'])
def test_a_uniform_plan_gives_the_same_packed_and_dense(backbone, attention, masker):
    # Drop path too: it draws once a sequence on either path, so the same seed drops the same ones.
    model = build('MAE', dict(type=masker), dict(backbone, drop_path_rate=0.4)).train()
    tokens = model.encoder.embed(images()).detach()
    plan = model.masker(tokens, torch.Generator().manual_seed(0))
    torch.manual_seed(1)
    dense = model.predict_hidden(tokens, plan)
    torch.manual_seed(1)
    with attention_backend(attention):
        flat = model.predict_packed(tokens, plan)
    torch.testing.assert_close(flat.view_as(dense), dense, rtol=1e-5, atol=1e-5)
    torch.manual_seed(2)
    assert not torch.allclose(model.predict_packed(tokens, plan), flat, atol=1e-3)


@pytest.mark.parametrize(
    'backbone',
    [
        dict(VIT, layer_cfgs=dict(ffn_type='swiglu_fused')),
        dict(VIT, with_cls_token=False),
        dict(VIT, pre_norm=True, final_norm=False),
        dict(HIVIT, qk_scale=0.7),
    ],
    ids=['swiglu', 'no_cls', 'norms', 'qk_scale'],
)
def test_options_of_the_backbones_are_respected(backbone):
    model = build('MAE', backbone=backbone)
    tokens = model.encoder.embed(images())
    plan = model.masker(tokens)
    dense = model.encoder.encode(tokens, plan.visible)
    flat = model.encoder.encode_packed(tokens, pack_plan(plan, model.grid.num_prefix))
    torch.testing.assert_close(flat, dense.flatten(0, 1), rtol=1e-5, atol=1e-5)


@BACKBONES
def test_dropout_of_tokens_and_attention_is_live_in_training_only(backbone):
    rates = dict(attn_drop_rate=0.5) if 'HiViT' in backbone['type'] else dict(layer_cfgs=dict(attn_drop_rate=0.5))
    model = build('MAE', backbone=dict(backbone, **rates))
    tokens, packing = model.encoder.embed(images()), pack_plan(ragged_plan(), model.grid.num_prefix)

    def encode():
        return model.encoder.encode_packed(tokens, packing)

    model.train()
    assert not torch.allclose(encode(), encode())
    model.eval()
    assert torch.equal(encode(), encode())


def test_drop_path_drops_whole_sequences():
    packing = pack_plan(ragged_plan(), 1)
    layer = MODELS.build(dict(type='mmengine.DropPath', drop_prob=0.5)).train()
    out = drop_path(torch.ones(len(packing.sequence), 4), layer, packing)
    per_sequence = [piece.unique().tolist() for piece in out.split(packing.lengths)]
    assert sorted(map(tuple, per_sequence)) != [(2.0,)] * 6 and all(v in ([0.0], [2.0]) for v in per_sequence)
    assert [0.0] in per_sequence and [2.0] in per_sequence
    assert (drop_path(torch.ones(3, 4), layer.eval(), packing) == 1).all()


def test_the_layout_holds_each_visible_patch_once_behind_its_prefix():
    plan = ragged_plan()
    packing = pack_plan(plan, 1)
    tokens = torch.arange(3 * 16.0).view(3, 16, 1)  # a token's value says where it comes from
    flat = pack_tokens(tokens, packing, torch.full((1, 1, 1), -1.0)).flatten().tolist()
    expected = []
    for length in (1, 4, 7, 9, 16):  # by length, equal ones in the order of the images
        for b in range(3):
            for k in range(3):
                if LENGTHS[b][k] == length:
                    expected += [-1.0] + [b * 16.0 + n for n in plan.order[b, k, :length].tolist()]
    assert flat == expected
    assert packing.lengths == (2, 5, 5, 8, 10, 17) and packing.groups == ((1, 2), (2, 5), (1, 8), (1, 10), (1, 17))
    assert packing.starts.tolist() == [0, 2, 7, 12, 20, 30, 47] and packing.starts.dtype == torch.int32


@ON_CPU
def test_attention_is_a_softmax_within_each_sequence(attention):
    packing = pack_plan(ragged_plan(), 1)
    total = len(packing.sequence)
    qkv = torch.randn(total, 3, 2, 8, dtype=torch.float64, requires_grad=True)
    with attention_backend(attention):
        out = attend(qkv, packing, scale=0.3)
    q, k, v = (qkv[:, i].transpose(0, 1) for i in range(3))
    other = packing.sequence[:, None] != packing.sequence
    weights = (q @ k.transpose(1, 2) * 0.3).masked_fill(other, float('-inf')).softmax(-1)
    wanted = (weights @ v).transpose(0, 1).flatten(1)
    torch.testing.assert_close(out, wanted)
    direction = torch.randn_like(out)
    (grad,) = torch.autograd.grad((out * direction).sum(), qkv, retain_graph=True)
    torch.testing.assert_close(grad, torch.autograd.grad((wanted * direction).sum(), qkv)[0])


def test_backends_are_named_and_restored():
    with pytest.raises(ValueError, match="'flash'.*varlen, by_length, padded"):
        with attention_backend('flash'):
            pass
    packing = pack_plan(ragged_plan(), 0)
    assert packed.choose_backend(torch.zeros(41, 3, 2, 8), packing, 0.0) == 'by_length'


@pytest.mark.skipif(packed.varlen_attn is None, reason='this torch has no varlen_attn')
def test_varlen_attn_accepts_what_it_is_given():
    # Shapes and keywords through the real operator without a kernel, as there is none for a CPU.
    packing = pack_plan(ragged_plan(), 1)
    qkv = torch.empty(47, 3, 2, 8, dtype=torch.bfloat16, device='meta', requires_grad=True)
    out = BACKENDS['varlen'](qkv, replace(packing, starts=packing.starts.to('meta')), 0.0)
    assert out.shape == (47, 2, 8) and out.dtype == torch.bfloat16
    out.sum().backward()
    assert qkv.grad.shape == qkv.shape


@pytest.mark.skipif(packed.varlen_attn is None or not torch.cuda.is_available(), reason='needs a GPU and varlen_attn')
def test_varlen_attn_equals_padding_on_a_gpu():
    plan = MaskPlan.from_lengths(ragged_plan().order.cuda(), LENGTHS)
    packing = pack_plan(plan, 1)
    qkv = torch.randn(47, 3, 2, 32, device='cuda', dtype=torch.bfloat16, requires_grad=True)
    assert packed.choose_backend(qkv, packing, 0.0) == 'varlen'
    grads = []
    for name in ('varlen', 'padded'):
        with attention_backend(name):
            grads.append(torch.autograd.grad(attend(qkv, packing).float().square().sum(), qkv)[0])
    torch.testing.assert_close(*grads, rtol=0.05, atol=0.05)


@BACKBONES
@pytest.mark.parametrize('per_image_mean', [False, True])
def test_mae_trains_on_a_ragged_plan_with_the_loss_of_its_predictions(backbone, per_image_mean):
    model = build('MAE', backbone=backbone, per_image_mean=per_image_mean)
    model.masker = fixed(ragged_plan())
    out, parts = model.loss(images()), model.reconstruct(images())
    whole = reconstruction_loss(parts['pred'], parts['target'], parts['plan'].mask, per_image_mean)
    mean = parts['target'].mean(-1, keepdim=True)[:, None].expand_as(parts['pred'])
    trivial = reconstruction_loss(mean, parts['target'], parts['plan'].mask, per_image_mean)
    torch.testing.assert_close(out['loss_whole'], whole)
    torch.testing.assert_close(out['mse_patch_mean'], trivial)
    total_loss(out).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters() if p.requires_grad)


@pytest.mark.parametrize('normalizer', ['overlap', 'all'])
def test_emae_takes_any_lengths(normalizer):
    model = build('EMAE', normalizer=normalizer)
    model.masker = fixed(ragged_plan([[4, 1, 7], [9, 2, 0], [4, 15, 3]]))
    out, parts = model.loss(images()), model.reconstruct(images())
    pred = parts['pred'].clone().requires_grad_()
    torch.testing.assert_close(out['loss_whole'], reconstruction_loss(pred, parts['target'], parts['plan'].mask))
    wanted = naive_consistency(pred, parts['plan'].mask, normalizer)
    assert wanted > 0
    torch.testing.assert_close(out['loss_consistency'], wanted, atol=1e-6, rtol=1e-5)


def test_the_gradient_of_emae_with_five_parts_is_that_of_the_plain_definitions():
    model = build('EMAE', dict(type='ParallelMasking', num_parts=5))
    tokens = model.encoder.embed(images())
    plan = model.masker(tokens, torch.Generator().manual_seed(0))
    model.masker = fixed(plan)
    target = model.reconstruct(images())['target']
    pred = torch.zeros(3, 5, 16, 192)
    for k, length in enumerate(plan.num_visible):
        alone = MaskPlan(plan.order[:, k : k + 1], (length,))
        index = plan.order[:, k, length:, None].expand(-1, -1, 192)
        pred[:, k] = pred[:, k].scatter(1, index, model.predict_hidden(tokens, alone)[:, 0])
    wanted = gradients(model, reconstruction_loss(pred, target, plan.mask) + naive_consistency(pred, plan.mask))
    assert_same_gradients(gradients(model, total_loss(model.loss(images()))), wanted)


def test_bf16_autocast_trains_on_a_ragged_plan():
    model = build('EMAE')
    model.masker = fixed(ragged_plan())
    exact = model.loss(images())
    with torch.autocast('cpu', torch.bfloat16):
        out = model.loss(images())
    assert all(value.dtype == torch.float32 for value in out.values())
    total_loss(out).backward()
    assert out['loss_whole'].item() == pytest.approx(exact['loss_whole'].item(), rel=0.02)


def test_a_batch_of_one_image_is_not_ragged_and_gives_the_same_loss():
    model, plan, x = build('MAE'), ragged_plan(), images()
    model.masker = fixed(plan)
    together = model.loss(x)['loss_whole']
    sums, counts = [], []
    for b, lengths in enumerate(LENGTHS):
        present = [k for k, v in enumerate(lengths) if v]
        alone = MaskPlan.from_lengths(plan.order[b : b + 1, present], [[lengths[k] for k in present]])
        assert not alone.ragged
        model.masker = fixed(alone)
        counts.append(int(alone.mask.sum()))
        sums.append(model.loss(x[b : b + 1])['loss_whole'].item() * counts[-1])
    assert together.item() == pytest.approx(sum(sums) / sum(counts), rel=1e-5)
    assert len(set(counts)) == 3  # so that a mean of means would differ


def test_what_cannot_run_packed_is_refused():
    model = build('MAE')
    packing = pack_plan(ragged_plan(), 1)
    model.backbone.layers[1] = nn.Identity()
    with pytest.raises(NotImplementedError, match='layers of type Identity'):
        model.encoder.encode_packed(torch.zeros(3, 16, 32), packing)
    beit = MODELS.build(dict(VIT, type='mmpretrain.BEiTViT'))
    with pytest.raises(NotImplementedError, match='BEiTViT has no encode_packed'):
        encoder_of(beit).encode_packed(torch.zeros(3, 16, 32), packing)
    with pytest.raises(ValueError, match='img_size'):
        wide = MaskPlan(torch.arange(64).expand(1, 1, 64), (16,))
        model.decoder.forward_packed(torch.zeros(17, 32), pack_plan(wide, 1))
