"""data2vec 2.0 against a plain restatement of its step, written from the facts, and what runs through it."""

import math

import pytest
import torch
import torch.nn.functional as F
from mmengine.optim import build_optim_wrapper
from tiny import POST_NORM_VIT, VIT, data2vec2, images, total_loss
from toy_run import resumed_bit_for_bit, run

from mim_mm.algorithms.teacher import build_momentum
from mim_mm.clock import Clock
from mim_mm.decoders.conv_decoder import ConvDecoder
from mim_mm.encoders.positions import sincos_table
from mim_mm.engine.hooks.clock_hook import ClockHook
from mim_mm.evaluation.quality.collapse_hook import CollapseHook

SIDE, WIDTH, HEADS, COPIES = 4, 32, 2, 3


def part(state, prefix):
    return {name[len(prefix) :]: value for name, value in state.items() if name.startswith(prefix)}


def norm(x, w, name):
    return F.layer_norm(x, x.shape[-1:], w[f'{name}.weight'], w[f'{name}.bias'], 1e-6)


def standard(x, dim):
    return (x - x.mean(dim, keepdim=True)) / (x.var(dim, keepdim=True, correction=0) + 1e-5).sqrt()


def attend(x, w):
    q, k, v = F.linear(x, w['attn.qkv.weight'], w['attn.qkv.bias']).chunk(3, dim=-1)
    each, out = WIDTH // HEADS, []
    for head in range(HEADS):
        at = slice(head * each, (head + 1) * each)
        out.append((q[..., at] @ k[..., at].transpose(1, 2) / math.sqrt(each)).softmax(-1) @ v[..., at])
    return F.linear(torch.cat(out, dim=-1), w['attn.proj.weight'], w['attn.proj.bias'])


def blocks(w, x, shown=None):
    """Outputs of the last block and what the MLPs add, of whole images or the patches that bool (B, N) shows."""
    x = F.conv2d(x, w['patch_embed.projection.weight'], w['patch_embed.projection.bias'], stride=8)
    x = x.flatten(2).transpose(1, 2) + w['pos_embed'][:, 1:]
    if shown is not None:
        x = torch.stack([one[at] for one, at in zip(x, shown)])
    x = norm(torch.cat([w['cls_token'].expand(len(x), -1, -1), x], dim=1), w, 'pre_norm')
    added = []
    for i in range(2):
        own = part(w, f'layers.{i}.')
        x = norm(x + attend(x, own), own, 'ln1')
        y = F.gelu(F.linear(x, own['ffn.layers.0.0.weight'], own['ffn.layers.0.0.bias']))
        added.append(F.linear(y, own['ffn.layers.1.weight'], own['ffn.layers.1.bias']))
        x = norm(x + added[-1], own, 'ln2')
    return x, added


def convolve(x, weight, bias, groups):
    """Group by group; x (B, D, H, W)."""
    taken, made = x.chunk(groups, dim=1), weight.chunk(groups)
    return (
        torch.cat([F.conv2d(a, b, padding=weight.shape[-1] // 2) for a, b in zip(taken, made)], dim=1)
        + bias[:, None, None]
    )


def restated(state, x, plan, noise, cls_weight):
    """Both losses, copy by copy; noise (B * K, N, D)."""
    student, teacher, decoder = (part(state, f'{name}.') for name in ('backbone', 'teacher', 'decoder'))
    with torch.no_grad():
        _, added = blocks(teacher, x)
        wanted = standard(sum(standard(y[:, 1:], 1) for y in added) / len(added), -1)
    features, classes = [], []
    for k in range(plan.num_parts):
        hidden = plan.mask[:, k]
        latent, _ = blocks(student, x, ~hidden)
        seen = [0.01 * noise[b * plan.num_parts + k] for b in range(len(x))]
        for b, at in enumerate(~hidden):
            seen[b] = seen[b].index_put((at.nonzero()[:, 0],), latent[b, 1:])
        y = torch.stack(seen).transpose(1, 2).reshape(len(x), WIDTH, SIDE, SIDE)
        for i in range(2):
            z = convolve(y, decoder[f'decoder_blocks.{i}.weight'], decoder[f'decoder_blocks.{i}.bias'], 4)
            y = y + F.gelu(standard(z, 1))
        said = F.linear(y.flatten(2).transpose(1, 2), decoder['proj.weight'], decoder['proj.bias'])
        features.append(((said - wanted) ** 2)[hidden])
        classes.append((latent[:, 0] - wanted.mean(1)) ** 2)
    # sums over channels over the root of their number, means over hidden patches and over copies
    features, classes = torch.cat(features), torch.cat(classes)
    scale = 1 / math.sqrt(WIDTH)
    return features.sum() * scale / len(features), cls_weight * classes.sum() * scale / len(classes)


def moved(model):
    """Nothing trained at 0 or 1, and a teacher that is not the student."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator) * ('pos_embed' not in name))
    model.teachers[0].settled = True
    return model.double().train()


def test_two_steps_are_those_of_a_plain_restatement():
    torch.manual_seed(0)
    model = moved(data2vec2(momentum=dict(start=0.9, end=0.99, steps=3), cls_weight=0.4))
    masker = model.masker
    wrapper = build_optim_wrapper(model, dict(
        type='OptimWrapper', clip_grad=dict(max_norm=0.5), constructor='mim_mm.LayerDecayConstructor',
        optimizer=dict(type='AdamW', lr=2e-3, weight_decay=0.05), paramwise_cfg=dict(no_decay=[]),
    ))  # fmt: skip
    names = dict(model.named_parameters())
    state = {k: v.detach().clone().requires_grad_(v.requires_grad) for k, v in names.items()}
    trained = {k: v for k, v in state.items() if v.requires_grad}
    assert 'backbone.pos_embed' not in trained
    adam = torch.optim.AdamW(trained.values(), lr=2e-3, weight_decay=0.05)
    for step in range(2):
        x = images(3, seed=step).double()
        model.begin_step(Clock(0, step, 0, step / 10, 10, 1.0))
        plan = masker(torch.zeros(3, 16, 1), torch.Generator().manual_seed(step))
        model.masker = lambda tokens, generator=None, plan=plan: plan
        noise = torch.randn((3 * COPIES, 16, WIDTH), generator=model.mask_generator.clone_state()).double()
        out = model.loss(x)
        wanted = restated(state, x, plan, noise, 0.4)
        for name, value in zip(('loss_features', 'loss_cls'), wanted):
            assert out[name].item() == pytest.approx(value.item(), abs=1e-10), name
        wrapper.zero_grad(), adam.zero_grad()
        total_loss(out).backward(), sum(wanted).backward()
        wrapper._clip_grad()
        assert torch.nn.utils.clip_grad_norm_(trained.values(), 0.5) > 0.5
        for key, value in trained.items():
            torch.testing.assert_close(names[key].grad, value.grad, rtol=1e-6, atol=1e-9, msg=key)
        wrapper.optimizer.step(), adam.step()
        model.end_step()
        momentum = (0.9 + 0.09 / 3, 0.9 + 0.09 * 2 / 3)[step]
        with torch.no_grad():
            for key in part(state, 'teacher.'):
                state[f'teacher.{key}'].mul_(momentum).add_(state[f'backbone.{key}'], alpha=1 - momentum)
        for key, value in state.items():
            torch.testing.assert_close(names[key].detach(), value.detach(), rtol=0, atol=1e-8, msg=key)


def test_a_line_of_so_many_iterations():
    """``end - (end - start) * (1 - n / steps)`` behind the n-th update, ``end`` from then on."""
    line = build_momentum(dict(start=0.9998, end=0.99999, steps=4))
    found = [line(Clock(0, i, 0, i / 100)) for i in range(6)]
    wanted = [0.9998 + 0.00019 * n / 4 for n in (1, 2, 3, 4)] + [0.99999] * 2
    assert found == pytest.approx(wanted, abs=1e-15)
    with pytest.raises(ValueError, match='with steps=100_000'):
        build_momentum(dict(start=0.9, end=1.0, steps=3, shape='linear'))
    with pytest.raises(ValueError, match='steps is 0'):
        build_momentum(dict(start=0.9, end=1.0, steps=0))


def test_it_starts_as_its_release():
    torch.manual_seed(0)
    arch = dict(VIT['arch'], embed_dims=128, num_heads=4, feedforward_channels=512)
    model = data2vec2(backbone=dict(POST_NORM_VIT, arch=arch))
    for name, value in model.backbone.named_parameters():
        assert torch.equal(value, model.teacher.get_parameter(name)), name
        value = value.detach()
        if name == 'pos_embed':
            assert torch.equal(value, sincos_table(4, 4, 128, 1)) and not value.requires_grad
        elif name == 'cls_token':
            assert float(value.std()) == pytest.approx(1, rel=0.25)
        elif name == 'patch_embed.projection.weight':
            bound = math.sqrt(6 / (128 + 3 * 64))
            assert value.abs().max() <= bound and float(value.std()) == pytest.approx(bound / math.sqrt(3), rel=0.05)
        elif name == 'patch_embed.projection.bias':
            assert value.abs().max() <= 1 / math.sqrt(3 * 64) and value.any()
        elif 'ln' in name or 'norm' in name:
            assert (value == float('weight' in name)).all(), name
        elif name.endswith('bias'):
            assert not value.any(), name
        else:  # not cut at two or at one of them
            assert float(value.std()) == pytest.approx(0.02, rel=0.05) and value.abs().max() > 0.05, name


def test_the_teacher_sees_no_drop_path_and_each_copy_sees_its_own_patches():
    model = data2vec2(backbone=dict(POST_NORM_VIT, drop_path_rate=0.6)).train()
    assert model.backbone.training and not model.teacher.training
    x = images()
    assert torch.equal(model.teach(x), model.teach(x))
    plan = model.plan(x, torch.Generator().manual_seed(0))
    model.eval()
    latent = model.encode_copies(model.encoder.embed(x), plan, 'data2vec 2.0').unflatten(0, (3, COPIES))
    for k in range(COPIES):
        alone = model.encoder.encode(model.encoder.embed(x), plan.visible[:, k : k + 1])
        torch.testing.assert_close(latent[:, k], alone)


def test_thrown_patches_are_noise_and_targets_of_one_context_are_encoded_once():
    for masker in (
        dict(type='RandomMasking', ratio=0.6, predict=0.3),
        dict(type='MultiBlockMasking', num_targets=2, target_scale=(0.2, 0.3), min_keep=1),
    ):
        model = data2vec2(masker)
        model.mask_generator = torch.Generator().manual_seed(0)
        x = images()
        plan = model.plan(x, torch.Generator().manual_seed(0))
        assert plan.num_thrown
        said = model.predict(model.encode_copies(model.encoder.embed(x), plan, 'data2vec 2.0'), plan, (4, 4))
        assert said.shape == (3 * plan.num_parts, plan.hidden.shape[-1], WIDTH) and said.isfinite().all()


def test_noise_follows_the_clock():
    model, x = data2vec2().eval(), images()

    def loss(step):
        model.begin_step(Clock(0, step, 0, 0.0))
        return model.loss(x)['loss_features']

    assert loss(3) == loss(3) != loss(4)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match='must be ascending, each once, within the 2'):
        data2vec2_with(target_blocks=[0, 5])
    with pytest.raises(ValueError, match='cls_weight=-1'):
        data2vec2_with(cls_weight=-1)
    no_class = dict(POST_NORM_VIT, with_cls_token=False)
    with pytest.raises(ValueError, match='has no class token: set cls_weight=0'):
        data2vec2_with(backbone=no_class)
    assert 'loss_cls' not in data2vec2(backbone=no_class, cls_weight=0).loss(images())
    with pytest.raises(ValueError, match='the same number of visible patches'):
        data2vec2(dict(type='ComplementaryMasking')).loss(images())
    for options in (dict(kernel=4), dict(groups=5), dict(depth=0)):
        with pytest.raises(ValueError, match='the kernel must be odd'):
            ConvDecoder(32, **options)


def data2vec2_with(backbone=POST_NORM_VIT, **options):
    from mim_mm.algorithms.data2vec2 import Data2Vec2

    return Data2Vec2(dict(backbone), dict(type='RandomMasking'), **{**dict(target_blocks=[0]), **options})


def test_a_decoder_of_another_width_has_no_first_residual():
    torch.manual_seed(0)
    decoder, x = ConvDecoder(8, embed_dims=4, depth=1, kernel=1, groups=4), torch.randn(1, 6, 8)
    y = decoder.decoder_blocks[0](x.transpose(1, 2).view(1, 8, 2, 3))
    y = F.gelu(F.layer_norm(y.movedim(1, -1), (4,))).flatten(1, 2)
    torch.testing.assert_close(decoder(x, (2, 3)), decoder.proj(y))


# ---- runs


def test_a_resumed_run_goes_on_bit_for_bit(tmp_path, monkeypatch):
    monkeypatch.setattr('toy_run.Images.__getitem__', lambda self, i: dict(inputs=images(1, seed=i)[0]))
    whole, _ = resumed_bit_for_bit(tmp_path, lambda: data2vec2(momentum=dict(start=0.9, end=0.99, steps=5)))
    assert not torch.equal(whole.state_dict()['teacher.cls_token'], whole.state_dict()['backbone.cls_token'])


def test_the_alarm_of_collapse_sees_the_teacher(tmp_path, monkeypatch):
    monkeypatch.setattr('toy_run.Images.__getitem__', lambda self, i: dict(inputs=images(1, seed=i)[0]))
    loop, hooks = dict(by_epoch=True, max_epochs=1), [ClockHook(), CollapseHook(interval=1)]
    runner = run(tmp_path / 'run', data2vec2(), loop, hooks=hooks)
    assert runner.message_hub.get_scalar('train/feature_rank').current() > 1
    assert runner.model.seen_features.shape == (2, WIDTH)
