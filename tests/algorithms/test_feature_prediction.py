"""I-JEPA and data2vec against plain restatements of their steps, written from the facts, and what runs through them."""

import math

import pytest
import torch
import torch.nn.functional as F
from input_tokens import VIT as BEIT_VIT
from input_tokens import data2vec
from mmengine.optim import build_optim_wrapper
from tiny import VIT, ijepa, images
from toy_run import resumed_bit_for_bit, run

from mim_mm.algorithms.data2vec import Data2Vec
from mim_mm.algorithms.teacher import build_momentum
from mim_mm.clock import Clock
from mim_mm.encoders.positions import sincos_table
from mim_mm.engine.hooks.clock_hook import ClockHook
from mim_mm.evaluation.quality.collapse_hook import CollapseHook
from mim_mm.masking import MaskPlan
from mim_mm.registry import PARAM_SCHEDULERS

NO_CLS = dict(VIT, with_cls_token=False)
SIDE, WIDTH, HEADS = 4, 32, 2


def part(state, prefix):
    return {name[len(prefix) :]: value for name, value in state.items() if name.startswith(prefix)}


def norm(x, w, name):
    return F.layer_norm(x, x.shape[-1:], w[f'{name}.weight'], w[f'{name}.bias'], 1e-6)


def plain(x):
    """Each row by its own mean and spread, variance floor 1e-5."""
    return (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True, correction=0) + 1e-5).sqrt()


def attend(q, k, v, heads, bias=None):
    """Head by head; q, k, v (B, L, D), bias (H, L, L)."""
    each, out = q.shape[-1] // heads, []
    for head in range(heads):
        at = slice(head * each, (head + 1) * each)
        logits = q[..., at] @ k[..., at].transpose(1, 2) / math.sqrt(each)
        out.append((logits if bias is None else logits + bias[head]).softmax(-1) @ v[..., at])
    return torch.cat(out, dim=-1)


def mlp(x, w):
    x = F.gelu(F.linear(x, w['ffn.layers.0.0.weight'], w['ffn.layers.0.0.bias']))
    return F.linear(x, w['ffn.layers.1.weight'], w['ffn.layers.1.bias'])


def block(x, w, heads):
    q, k, v = F.linear(norm(x, w, 'ln1'), w['attn.qkv.weight'], w['attn.qkv.bias']).chunk(3, dim=-1)
    x = x + F.linear(attend(q, k, v, heads), w['attn.proj.weight'], w['attn.proj.bias'])
    return x + mlp(norm(x, w, 'ln2'), w)


def embed(w, x):
    x = F.conv2d(x, w['patch_embed.projection.weight'], w['patch_embed.projection.bias'], stride=8)
    return x.flatten(2).transpose(1, 2)


def huber(difference, beta):
    size = difference.abs()
    return torch.where(size < beta, 0.5 * size**2 / beta, size - 0.5 * beta).mean()


def rows_of(x, places):
    return torch.stack([one[at] for one, at in zip(x, places)])


# ---- I-JEPA


def encode(w, x, places=None):
    x = embed(w, x) + w['pos_embed']
    x = x if places is None else rows_of(x, places)
    for i in range(2):
        x = block(x, part(w, f'layers.{i}.'), HEADS)
    return norm(x, w, 'ln1')


def restated_ijepa(state, x, plan):
    student, teacher, predictor = (part(state, f'{name}.') for name in ('backbone', 'teacher', 'predictor'))
    with torch.no_grad():
        features = plain(encode(teacher, x))
    latent = encode(student, x, plan.order[:, 0, : plan.num_visible[0]])
    seen = F.linear(latent, predictor['predictor_embed.weight'], predictor['predictor_embed.bias'])
    table = predictor['predictor_pos_embed'].expand(len(x), -1, -1)
    seen = seen + rows_of(table, plan.order[:, 0, : plan.num_visible[0]])
    errors = []
    for k in range(plan.num_parts):
        target = plan.mask[:, k].nonzero()[:, 1].view(len(x), -1)
        y = torch.cat([seen, predictor['mask_token'] + rows_of(table, target)], dim=1)
        y = block(y, part(predictor, 'predictor_blocks.0.'), HEADS)
        y = norm(y, predictor, 'predictor_norm')[:, seen.shape[1] :]
        said = F.linear(y, predictor['predictor_proj.weight'], predictor['predictor_proj.bias'])
        errors.append(huber(said - rows_of(features, target), 1.0))
    return sum(errors) / len(errors)  # targets are equally large


# ---- data2vec


def relative_bias(table, side):
    """(H, 1+N, 1+N) from a table (D, H) whose last three rows are class to patch, patch to class, class to class."""
    number = side * side
    bias = table.new_zeros(table.shape[1], number + 1, number + 1)
    for i in range(number):
        for j in range(number):
            rows, columns = i // side - j // side + side - 1, i % side - j % side + side - 1
            bias[:, 1 + i, 1 + j] = table[rows * (2 * side - 1) + columns]
    bias[:, 0, 1:], bias[:, 1:, 0] = table[-3][:, None], table[-2][:, None]
    bias[:, 0, 0] = table[-1]
    return bias


def beit_blocks(w, x, mask=None):
    x = embed(w, x)
    if mask is not None:
        x = torch.where(mask[..., None], w['mask_token'], x)
    x = torch.cat([w['cls_token'].expand(len(x), -1, -1), x], dim=1)
    bias, found = relative_bias(w['rel_pos_bias.relative_position_bias_table'], SIDE), []
    for i in range(2):
        own = part(w, f'layers.{i}.')
        q, k, v = F.linear(norm(x, own, 'ln1'), own['attn.qkv.weight']).chunk(3, dim=-1)
        y = attend(q + own['attn.q_bias'], k, v + own['attn.v_bias'], HEADS, bias)
        x = x + own['gamma_1'] * F.linear(y, own['attn.proj.weight'], own['attn.proj.bias'])
        x = x + own['gamma_2'] * mlp(norm(x, own, 'ln2'), own)
        found.append(x)
    return found


def restated_data2vec(state, x, plan):
    student, teacher = part(state, 'backbone.'), part(state, 'teacher.')
    mask = plan.mask[:, 0]
    with torch.no_grad():
        wanted = plain(sum(plain(y[:, 1:]) for y in beit_blocks(teacher, x)) / 2)[mask]
    last = norm(beit_blocks(student, x, mask)[-1], student, 'ln1')[:, 1:]
    return huber(F.linear(last[mask], state['head.weight'], state['head.bias']) - wanted, 2.0)


# ---- the step


METHODS = {
    'ijepa': (lambda: ijepa(backbone=NO_CLS, momentum=dict(start=0.9, end=1.0, shape='linear')), restated_ijepa),
    'data2vec': (
        lambda: data2vec(dict(type='BlockMasking', ratio=0.6, min_block=2, fill='none'), momentum=0.9),
        restated_data2vec,
    ),
}


def moved(model):
    """Nothing at 0 or 1, and a teacher that is not the student."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    model.teachers[0].settled = True
    return model.double().train()


@pytest.mark.parametrize('name', METHODS)
def test_two_steps_are_those_of_a_plain_restatement(name):
    make, restated = METHODS[name]
    torch.manual_seed(0)
    model = moved(make())
    wrapper = build_optim_wrapper(model, dict(
        type='OptimWrapper', clip_grad=dict(max_norm=0.02), optimizer=dict(type='AdamW', lr=2e-3, weight_decay=0.05),
        constructor='mim_mm.LayerDecayConstructor',
        paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0, flat_decay_mult=0.0, no_decay=['cls_token']),
    ))  # fmt: skip
    names = dict(model.named_parameters())
    state = {k: v.detach().clone().requires_grad_(v.requires_grad) for k, v in names.items()}
    trained = {k: v for k, v in state.items() if v.requires_grad}
    decayed = {k for k, v in trained.items() if v.ndim > 1 and not k.endswith('cls_token')}
    adam = torch.optim.AdamW(
        [dict(params=[v for k, v in trained.items() if (k in decayed) == flag], weight_decay=0.05 * flag)
         for flag in (True, False)], lr=2e-3,
    )  # fmt: skip
    for step in range(2):
        x = images(3, seed=step).double()
        model.begin_step(Clock(0, step, 0, step / 10, 10, 1.0))
        plan = model.plan(x, torch.Generator().manual_seed(step))
        assert isinstance(plan, MaskPlan)
        model.masker = lambda tokens, generator=None, plan=plan: plan
        out = model.loss(x)
        loss = restated(state, x, plan)
        model.masker = make().masker
        assert out['loss_features'].item() == pytest.approx(loss.item(), abs=1e-10)
        wrapper.zero_grad(), adam.zero_grad()
        out['loss_features'].backward(), loss.backward()
        for key, value in trained.items():
            torch.testing.assert_close(names[key].grad, value.grad, rtol=1e-7, atol=1e-12, msg=key)
        wrapper._clip_grad()
        assert torch.nn.utils.clip_grad_norm_(trained.values(), 0.02) > 0.02
        for key, value in trained.items():
            torch.testing.assert_close(names[key].grad, value.grad, rtol=1e-7, atol=1e-12, msg=key)
        wrapper.optimizer.step(), adam.step()
        model.end_step()
        momentum = 0.9 + 0.1 * step / 10 if name == 'ijepa' else 0.9
        with torch.no_grad():
            for key in part(state, 'teacher.'):
                state[f'teacher.{key}'].mul_(momentum).add_(state[f'backbone.{key}'], alpha=1 - momentum)
        for key, value in state.items():
            torch.testing.assert_close(names[key].detach(), value.detach(), rtol=0, atol=1e-8, msg=key)


def test_targets_of_one_context_are_those_of_contexts_of_their_own():
    model, x = ijepa().eval(), images()
    tokens = model.encoder.embed(x)
    plan = model.draw_plan(tokens, torch.Generator().manual_seed(0))
    assert plan.same_visible
    apart = MaskPlan(plan.order, plan.num_visible, num_thrown=plan.num_thrown)
    torch.testing.assert_close(model.predict(tokens, plan, (4, 4)), model.predict(tokens, apart, (4, 4)))


def test_a_line_of_momenta():
    line = build_momentum(dict(start=0.996, end=1.0, shape='linear'))
    found = [line(Clock(0, i, 0, i / 20)) for i in range(20)]
    assert found == pytest.approx([0.996 + i * (1.0 - 0.996) / 20 for i in range(20)], abs=1e-15)
    with pytest.raises(ValueError, match="shape='linear'"):
        build_momentum(dict(start=0.9, shape='bend'))


def test_rates_and_decay_are_those_of_ijepa():
    """``step`` of both schedules is called before the forward pass, the first time with 1."""
    layer, total, warm = torch.nn.Linear(2, 2), 40, 10
    groups = [dict(params=[layer.weight], weight_decay=0.04), dict(params=[layer.bias], weight_decay=0.0)]
    optimizer = torch.optim.AdamW(groups, lr=1e-3)
    made = [
        PARAM_SCHEDULERS.build(dict(optimizer=optimizer, by_epoch=False, like='msn', **settings))
        for settings in (
            dict(type='mim_mm.WarmupLR', start_factor=0.2, end=warm),
            dict(type='mim_mm.HalfCosineLR', begin=warm, end=total, eta_min=1e-6),
            dict(type='mim_mm.HalfCosineWeightDecay', end=total, eta_min=0.4),
        )
    ]
    for step in range(1, total + 1):
        if step < warm:
            rate = 2e-4 + step / warm * (1e-3 - 2e-4)
        else:
            rate = 1e-6 + (1e-3 - 1e-6) * 0.5 * (1 + math.cos(math.pi * (step - warm) / (total - warm)))
        decay = 0.4 + (0.04 - 0.4) * 0.5 * (1 + math.cos(math.pi * step / total))
        assert optimizer.param_groups[0]['lr'] == pytest.approx(rate, rel=1e-12)
        assert [g['weight_decay'] for g in optimizer.param_groups] == pytest.approx([decay, 0.0], rel=1e-12)
        optimizer.step()
        for scheduler in made:
            scheduler.step()


# ---- how they start


def test_ijepa_starts_as_its_release():
    torch.manual_seed(0)
    wide = dict(NO_CLS, arch=dict(VIT['arch'], embed_dims=128, feedforward_channels=512))
    model = ijepa(backbone=wide, predictor=dict(embed_dims=64))
    for name, value in model.named_parameters():
        if name.startswith('teacher.'):
            assert torch.equal(value, model.get_parameter(f'backbone.{name[8:]}')), name
        elif name.endswith('pos_embed'):
            assert torch.equal(value, sincos_table(4, 4, value.shape[-1])) and not value.requires_grad
        elif name.endswith('bias'):
            assert not value.any(), name
        elif 'ln' in name or 'norm' in name:
            assert (value == 1).all(), name
        else:  # also the last projections of blocks, which the release draws anew after it has divided them
            assert float(value.detach().std()) == pytest.approx(0.02, rel=0.3 if value.numel() < 100 else 0.05), name


def test_data2vec_starts_as_beit_and_its_head_too():
    torch.manual_seed(0)
    model = data2vec()
    model.init_weights()
    assert model.head.weight.abs().max() <= 0.02 and 0.009 < float(model.head.weight.detach().std()) < 0.013
    assert not model.head.bias.any() and not model.backbone.rel_pos_bias.relative_position_bias_table.any()
    for name, value in model.backbone.named_parameters():
        assert torch.equal(value, model.teacher.get_parameter(name)), name


def test_the_teacher_of_data2vec_drops_nothing_and_reads_in_fp32():
    backbone = dict(BEIT_VIT, drop_path_rate=0.5, layer_cfgs=dict(attn_cfg=dict(attn_drop_rate=0.3)))
    model = data2vec(backbone=backbone).train()
    assert {layer.attn.attn_drop.p for layer in model.backbone.layers} == {0.3}
    assert model.backbone.training and not model.teacher.training
    x = images()
    wanted = model.teach(x)
    with torch.autocast('cpu', torch.bfloat16):
        found = model.teach(x)
        out = model.loss(x)
    assert torch.equal(found, wanted) and found.dtype == torch.float32
    assert out['loss_features'].dtype == torch.float32
    torch.manual_seed(1)
    first = model.loss(x)['loss_features']
    torch.manual_seed(2)
    model.mask_generator = None
    assert first != model.loss(x)['loss_features']


def test_an_accumulated_relative_index_stays_whole():
    model = data2vec()
    name = 'rel_pos_bias.relative_position_index'
    before = model.teacher.state_dict()[name].clone()
    for step in range(3):
        model.begin_step(Clock(0, step, 0, 0.0))
        model.end_step()
    assert torch.equal(model.teacher.state_dict()[name], before)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match='must be ascending, each once, within the 2'):
        data2vec_with(target_blocks=[0, 5])
    with pytest.raises(ValueError, match='beta is 0'):
        data2vec_with(target_blocks=[0], beta=0)
    with pytest.raises(ValueError, match='predictor.num_heads'):
        ijepa(predictor=dict(num_heads=5))


def data2vec_with(**options):
    return Data2Vec(dict(BEIT_VIT), dict(type='RandomMasking'), **options)


# ---- runs


@pytest.mark.parametrize('name', METHODS)
def test_a_resumed_run_goes_on_bit_for_bit(name, tmp_path, monkeypatch):
    monkeypatch.setattr('toy_run.Images.__getitem__', lambda self, i: dict(inputs=images(1, seed=i)[0]))
    resumed_bit_for_bit(tmp_path, METHODS[name][0])


@pytest.mark.parametrize('name', METHODS)
def test_the_alarm_of_collapse_sees_their_teachers(name, tmp_path, monkeypatch):
    monkeypatch.setattr('toy_run.Images.__getitem__', lambda self, i: dict(inputs=images(1, seed=i)[0]))
    runner = run(
        tmp_path / name, METHODS[name][0](), dict(by_epoch=True, max_epochs=1),
        hooks=[ClockHook(), CollapseHook(interval=1)],
    )  # fmt: skip
    assert runner.message_hub.get_scalar('train/feature_rank').current() > 1
    assert runner.model.seen_features.shape == (2, WIDTH)
