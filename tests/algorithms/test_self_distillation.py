"""DINO and iBOT against plain restatements of their steps, on two ranks, and what is watched of them."""

import copy
import math

import numpy
import pytest
import torch
import torch.nn.functional as F
from built_recipes import load
from masker_table import THROWING, table
from mmengine.optim import build_optim_wrapper
from processes import spawn
from tiny import VIT
from torch.nn.parallel import DistributedDataParallel

from mim_mm.algorithms.distillation import Centre, TeacherTemperature
from mim_mm.clock import Clock
from mim_mm.decoders.dino_head import DINOHead
from mim_mm.encoders.positions import positions_by_scale
from mim_mm.masking import MaskPlan, salience
from mim_mm.registry import MODELS, PARAM_SCHEDULERS

HEAD = dict(out_dims=24, hidden_dims=16, bottleneck_dims=8, norm_last_layer=False)
SPLIT = ('independent', 'parallel', 'complementary', 'inverse-block')
SEVERAL_PARTS = {name for name in table() if name in SPLIT or name.startswith('salience-')}
BLOCKS = dict(
    type='DrawnRatio', ratio=None, masker=dict(type='BlockMasking', ratio=(0.1, 0.5), fill='none', round_down=True)
)


def build(kind='iBOT', **options):
    torch.manual_seed(3)
    if kind == 'iBOT':
        options.setdefault('masker', BLOCKS)
        options.setdefault('patch_temp', dict(start=0.04, end=0.06, epochs=3))
    options.setdefault('teacher_temp', dict(start=0.04, end=0.07, epochs=3))
    config = dict(type=kind, _scope_='mim_mm', backbone=dict(VIT), head=dict(HEAD), **options)
    model = MODELS.build(copy.deepcopy(config))
    with torch.no_grad():  # nothing at 0 or 1, and a teacher that is not the student
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    model.teachers[0].settled = True
    return model.train()


def views(batch=3, small=2, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    sizes = [32, 32] + [16] * small
    return [torch.randn(batch, 3, side, side, generator=generator, dtype=dtype) for side in sizes]


def total(out):
    return sum(value for name, value in out.items() if 'loss' in name)


# ---- the step, restated


def run_vit(weights, images, mask=None):
    """The release's ViT, block by block, from a state dict in mmpretrain's names: (B, 1+N, D)."""
    x = F.conv2d(images, weights['patch_embed.projection.weight'], weights['patch_embed.projection.bias'], stride=8)
    if mask is not None:
        x = torch.where(mask.view(len(x), 1, *x.shape[-2:]), mask_token_of(weights), x)
    rows = x.shape[-1]
    x = x.flatten(2).transpose(1, 2)
    x = torch.cat([weights['cls_token'].expand(len(x), -1, -1), x], dim=1)
    table = weights['pos_embed']
    if rows != 4:
        maps = table[:, 1:].reshape(1, 4, 4, -1).permute(0, 3, 1, 2)
        maps = F.interpolate(maps, scale_factor=((rows + 0.1) / 4,) * 2, mode='bicubic')
        table = torch.cat([table[:, :1], maps.permute(0, 2, 3, 1).reshape(1, rows * rows, -1)], dim=1)
    x = x + table
    for i in range(2):
        w = {k[len(f'layers.{i}.') :]: v for k, v in weights.items() if k.startswith(f'layers.{i}.')}
        y = F.layer_norm(x, (32,), w['ln1.weight'], w['ln1.bias'], 1e-6)
        q, k, v = F.linear(y, w['attn.qkv.weight'], w['attn.qkv.bias']).unflatten(-1, (3, 2, 16)).permute(2, 0, 3, 1, 4)
        y = ((q @ k.transpose(-1, -2) / 4).softmax(-1) @ v).transpose(1, 2).flatten(2)
        x = x + F.linear(y, w['attn.proj.weight'], w['attn.proj.bias'])
        y = F.layer_norm(x, (32,), w['ln2.weight'], w['ln2.bias'], 1e-6)
        y = F.gelu(F.linear(y, w['ffn.layers.0.0.weight'], w['ffn.layers.0.0.bias']))
        x = x + F.linear(y, w['ffn.layers.1.weight'], w['ffn.layers.1.bias'])
    return F.layer_norm(x, (32,), weights['ln1.weight'], weights['ln1.bias'], 1e-6)


def mask_token_of(weights):
    return weights['mask_token'].view(1, -1, 1, 1)


def run_head(weights, x):
    for i in (0, 2, 4):
        x = F.linear(x, weights[f'mlp.{i}.weight'], weights[f'mlp.{i}.bias'])
        x = F.gelu(x) if i < 4 else x
    x = x / x.norm(dim=-1, keepdim=True)
    g, v = (weights[f'last_layer.parametrizations.weight.original{i}'] for i in (0, 1))
    return x @ (g * v / v.norm(dim=1, keepdim=True)).T


def part(state, prefix):
    return {name[len(prefix) :]: value for name, value in state.items() if name.startswith(prefix)}


def restated(state, inputs, mask, epoch, centre, patch_centre):
    """Losses of iBOT (mask of both large views, bool (2B, N)) or DINO (None), and the next centres."""
    student = dict(part(state, 'backbone.'), mask_token=state.get('mask_token'))
    teacher = part(state, 'teacher.backbone.')
    temperatures = numpy.linspace(0.04, 0.07, 3)[min(epoch, 2)], numpy.linspace(0.04, 0.06, 3)[min(epoch, 2)]
    batch, whole = len(inputs[0]), torch.cat(inputs[:2])
    taught = run_head(part(state, 'teacher.head.'), run_vit(teacher, whole)).detach()
    said = run_head(part(state, 'head.'), run_vit(student, whole, mask))
    classes = [said[:batch, 0], said[batch:, 0]]
    classes += [run_head(part(state, 'head.'), run_vit(student, small))[:, 0] for small in inputs[2:]]
    wanted = ((taught[:, 0] - centre) / temperatures[0]).softmax(-1).chunk(2)
    terms = [
        -(wanted[q] * (classes[v] / 0.1).log_softmax(-1)).sum(-1).mean()
        for q in range(2)
        for v in range(len(inputs))
        if v != q
    ]
    losses = dict(loss_cls=sum(terms) / len(terms))
    centres = [0.9 * centre + 0.1 * taught[:, 0].mean(0)]
    if mask is not None:
        errors = ((taught[:, 1:] - patch_centre) / temperatures[1]).softmax(-1)
        errors = -(errors * (said[:, 1:] / 0.1).log_softmax(-1)).sum(-1)
        losses['loss_patches'] = ((errors * mask).sum(1) / mask.sum(1).clamp(min=1)).mean()
        centres.append(0.9 * patch_centre + 0.1 * taught[:, 1:].flatten(0, 1).mean(0))
    return losses, centres


class Given:
    """A masker that hides what it is told to; bool (2B, N)."""

    def __init__(self, mask):
        self.mask = mask

    def __call__(self, tokens, generator=None):
        order = self.mask.long().argsort(dim=1, stable=True)[:, None]
        return MaskPlan.from_lengths(order, self.mask.shape[1] - self.mask.sum(dim=1))


def uneven_mask(rows=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    mask = torch.zeros(rows, 16, dtype=torch.bool)
    for row, count in zip(mask, [0, 5, 8, 2, 0, 7] * rows):
        row[torch.randperm(16, generator=generator)[:count]] = True
    return mask


@pytest.mark.parametrize('kind, clip', [('DINO', 0.05), ('iBOT', 0.5)])
def test_two_steps_are_those_of_a_plain_restatement(kind, clip):
    """Losses, gradients, clipped gradients, weights, teacher and centres, in float64; the last layer thaws between."""
    model = build(kind, momentum=dict(start=0.9)).double()
    wrapper = build_optim_wrapper(model, dict(
        type='mim_mm.AutocastOptimWrapper', on_cpu=False, clip_grad=dict(type='tensor', max_norm=clip),
        optimizer=dict(type='AdamW', lr=2e-3, weight_decay=0.04), constructor='mim_mm.LayerDecayConstructor',
        paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0, flat_decay_mult=0.0, no_decay=[]),
    ))  # fmt: skip
    state = {
        k: v.clone().requires_grad_('teacher' not in k) for k, v in model.state_dict().items() if 'centre' not in k
    }
    trained = {k: v for k, v in state.items() if v.requires_grad}
    decayed = {k for k, v in trained.items() if v.ndim > 1}
    groups = [
        dict(params=[v for k, v in trained.items() if (k in decayed) == flag], weight_decay=0.04 * flag)
        for flag in (True, False)
    ]
    adam = torch.optim.AdamW(groups, lr=2e-3)
    centres = [torch.zeros(24, dtype=torch.float64)] * 2
    for epoch in range(2):
        inputs, mask = views(seed=epoch), None
        if kind == 'iBOT':
            mask = uneven_mask(seed=epoch)
            model.masker = Given(mask)
        model.begin_step(Clock(0, epoch, epoch, epoch / 10, 1))
        out = model.loss(inputs)
        losses, followed = restated(state, inputs, mask, epoch, *centres)
        assert {k for k in out if 'loss' in k} == set(losses)
        for name, value in losses.items():
            assert out[name].item() == pytest.approx(value.item(), abs=1e-10)
        wrapper.zero_grad(), adam.zero_grad()
        total(out).backward(), sum(losses.values()).backward()
        names = dict(model.named_parameters())
        for name, value in trained.items():
            torch.testing.assert_close(names[name].grad, value.grad, rtol=1e-6, atol=1e-10)
        wrapper._clip_grad()
        clipped = 0
        for name, value in trained.items():
            factor = clip / (value.grad.norm() + 1e-6)
            clipped += bool(factor < 1)
            value.grad.mul_(factor if factor < 1 else 1)
            torch.testing.assert_close(names[name].grad, value.grad, rtol=1e-6, atol=1e-10)
        assert 0 < clipped < len(trained), [float(v.grad.norm()) for v in trained.values()]
        if epoch == 0:
            for weights in (trained, names):
                for name, value in weights.items():
                    if 'last_layer' in name:
                        value.grad = None
        wrapper.optimizer.step(), adam.step()
        model.end_step()
        momentum = 1 - 0.1 * 0.5 * (1 + math.cos(math.pi * epoch / 10))
        with torch.no_grad():
            for name, value in state.items():
                if name.startswith('teacher.'):
                    value.mul_(momentum).add_(state[name[8:]], alpha=1 - momentum)
        for name, value in state.items():
            torch.testing.assert_close(names[name].detach(), value.detach(), rtol=1e-6, atol=1e-8)
        torch.testing.assert_close(model.centre.mean, followed[0], rtol=1e-6, atol=1e-10)
        if kind == 'iBOT':
            torch.testing.assert_close(model.patch_centre.mean, followed[1], rtol=1e-6, atol=1e-10)
        centres = (followed * 2)[:2]


def test_a_batch_without_masks_trains_and_counts_nothing():
    model = build().double()
    model.masker = Given(torch.zeros(6, 16, dtype=torch.bool))
    out = model.loss(views())
    assert float(out['loss_patches']) == 0
    total(out).backward()
    assert not [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]


def test_evaluation_moves_no_centre():
    model = build().double().eval()
    model.loss(views())
    assert not model.centre.mean.any() and not model.patch_centre.mean.any()


def test_a_single_view_and_several_parts_are_refused():
    with pytest.raises(ValueError, match='several views of an image.*MultiCrop'):
        build().loss(torch.zeros(2, 3, 32, 32))
    with pytest.raises(ValueError, match='makes 4 parts of a view'):
        build(masker=dict(type='ParallelMasking', num_parts=4)).loss(views(dtype=torch.float32))


# ---- tables


def test_temperatures_are_those_of_the_releases():
    for start, end, epochs in ((0.04, 0.07, 30), (0.04, 0.07, 1), (0.04, 0.07, 2), (0.04, 0.04, 0)):
        table = numpy.concatenate([numpy.linspace(start, end, epochs), numpy.ones(50 - epochs) * end])
        temperature = TeacherTemperature(start, end, epochs)
        made = [temperature(Clock(0, 0, epoch, 0.0)) for epoch in range(50)]
        assert made == pytest.approx(table.tolist(), abs=1e-15)


def test_rate_and_weight_decay_follow_the_tables_of_dino():
    def table(base, final, warm_up):
        steps = numpy.arange(40 - warm_up)
        rest = final + 0.5 * (base - final) * (1 + numpy.cos(numpy.pi * steps / len(steps)))
        return numpy.concatenate([numpy.linspace(0, base, warm_up), rest])

    layer = torch.nn.Linear(2, 2)
    groups = [dict(params=[layer.weight], weight_decay=0.04), dict(params=[layer.bias], weight_decay=0.0)]
    optimizer = torch.optim.AdamW(groups, lr=2e-3)
    made = [
        PARAM_SCHEDULERS.build(dict(optimizer=optimizer, by_epoch=False, like='beit', **settings))
        for settings in (
            dict(type='mim_mm.WarmupLR', end=10),
            dict(type='mim_mm.HalfCosineLR', begin=10, end=40, eta_min=1e-6),
            dict(type='mim_mm.HalfCosineWeightDecay', end=40, eta_min=0.4),
        )
    ]
    rates, decays = table(2e-3, 1e-6, 10), table(0.04, 0.4, 0)
    for step in range(40):
        assert optimizer.param_groups[0]['lr'] == pytest.approx(rates[step], abs=1e-15)
        assert [g['weight_decay'] for g in optimizer.param_groups] == pytest.approx([decays[step], 0.0], abs=1e-15)
        optimizer.step()
        for scheduler in made:
            scheduler.step()


def test_positions_of_small_views_are_resampled_by_the_scale_of_dino():
    table = torch.randn(1, 196, 8, dtype=torch.float64)
    maps = table.reshape(1, 14, 14, 8).permute(0, 3, 1, 2)
    wanted = (
        F.interpolate(maps, scale_factor=(6.1 / 14, 6.1 / 14), mode='bicubic').permute(0, 2, 3, 1).reshape(1, 36, 8)
    )
    assert torch.equal(positions_by_scale(table, (14, 14), (6, 6)), wanted)
    plain = F.interpolate(maps, size=(6, 6), mode='bicubic').permute(0, 2, 3, 1).reshape(1, 36, 8)
    assert (plain - wanted).abs().max() > 0.01
    assert positions_by_scale(table, (14, 14), (14, 14)) is table


# ---- the head


def test_heads_are_copied_and_load_all_three_spellings():
    head = DINOHead(8, 16, hidden_dims=12, bottleneck_dims=6)
    x = torch.randn(5, 8)
    v = head.last_layer.parametrizations.weight.original1
    z = F.normalize(head.mlp(x), dim=-1)
    torch.testing.assert_close(head(x), z @ F.normalize(v, dim=1).T)
    trained = {name for name, p in head.named_parameters() if p.requires_grad}
    assert 'last_layer.parametrizations.weight.original0' not in trained
    copied = copy.deepcopy(head)
    assert torch.equal(copied(x), head(x))
    old = {
        name.replace('parametrizations.weight.original0', 'weight_g').replace(
            'parametrizations.weight.original1', 'weight_v'
        ): value
        for name, value in head.state_dict().items()
    }
    for state in (old, head.state_dict()):
        other = DINOHead(8, 16, hidden_dims=12, bottleneck_dims=6)
        other.load_state_dict(state)
        assert torch.equal(other(x), head(x))


def test_initialisation_is_that_of_the_releases():
    torch.manual_seed(0)
    vit = dict(VIT, arch=dict(embed_dims=128, num_layers=2, num_heads=2, feedforward_channels=512))
    model = MODELS.build(dict(type='iBOT', _scope_='mim_mm', backbone=vit, head=dict(HEAD), masker=BLOCKS))
    model.backbone.init_weights = lambda: None
    model.init_weights()
    for name, value in model.named_parameters():
        if name.startswith('teacher.'):
            assert torch.equal(value, model.get_parameter(name[8:])), name
            continue
        if name == 'mask_token' or (name.endswith('bias') and 'projection' not in name):
            assert not value.any(), name
        elif 'ln' in name or name.endswith('original0'):
            assert (value == 1).all(), name
        elif 'projection' in name or name.endswith('original1'):  # torch's default: uniform within 1 / sqrt(fan in)
            bound = 1 / math.sqrt(8 if name.endswith('original1') else 3 * 8 * 8)
            assert value.abs().max() <= bound and float(value.detach().std()) > bound / 3, name
        else:
            assert float(value.detach().std()) == pytest.approx(0.02, rel=0.25), name


# ---- masks


def test_a_drawn_ratio_hides_what_the_inner_masker_hides_first():
    tokens = torch.randn(400, 196, 2)
    masker = MODELS.build(dict(type='mim_mm.DrawnRatio', masker=dict(type='mim_mm.SalienceMasking', noise=0.0)))
    plan = masker(tokens, torch.Generator().manual_seed(0))
    hidden, scores = plan.mask[:, 0], salience(tokens)
    counts = hidden.sum(dim=1)
    assert 0.4 < float((counts > 0).float().mean()) < 0.6
    some = counts[counts > 0]
    assert some.min() >= 19 and some.max() <= 97 and abs(float(some.float().mean()) - 58.3) < 5
    for row, score in zip(hidden, scores):
        if row.any():
            assert score[row].min() >= score[~row].max()


def test_blocks_rounded_down_hide_the_means_of_ibot():
    """Realised shares of the release's generator for requested 0.1 to 0.5: 0.090, 0.195, 0.292, 0.395, 0.498."""
    tokens = torch.zeros(300, 196, 1)
    for ratio, share in ((0.1, 0.090), (0.3, 0.292), (0.5, 0.498)):
        masker = MODELS.build(dict(type='mim_mm.BlockMasking', ratio=ratio, fill='none', round_down=True))
        hidden = masker(tokens, torch.Generator().manual_seed(1)).mask.float().mean(dim=(1, 2))
        assert float(hidden.mean()) == pytest.approx(share, abs=0.008)
        assert float(hidden.max()) <= math.floor(196 * ratio) / 196 + 1e-6


def test_hints_and_high_follow_the_teachers_attention_of_the_same_pass():
    model = build(masker=dict(type='DrawnRatio', ratio=None, share=1.0, masker=dict(type='AttMask', round_down=True)))
    inputs = views(dtype=torch.float32)
    whole = torch.cat(inputs[:2])
    tokens, attention = model.teach(whole)
    wanted = model.teacher_encoder.cls_attention(model.teacher_encoder.embed(whole))
    torch.testing.assert_close(attention, wanted)
    cls, patches = model.teacher_encoder.encode_whole(whole)
    torch.testing.assert_close(tokens, torch.cat([cls, patches], dim=1))
    mask = model.plan(whole, torch.Generator().manual_seed(0)).mask[:, 0]
    for row, score in zip(mask, attention):
        assert 1 <= row.sum() <= 8 and score[row].min() >= score[~row].max()


@pytest.mark.parametrize('name', sorted(table()))
def test_ibot_trains_under_maskers(name):
    model, inputs = build(masker=table()[name]), views(batch=2, dtype=torch.float32)
    model.mask_generator = torch.Generator().manual_seed(0)
    if name in SEVERAL_PARTS | THROWING:
        with pytest.raises(ValueError, match='parts of a view|throws .* patches away'):
            model.loss(inputs)
        return
    out = model.loss(inputs)
    assert all(torch.isfinite(value) for value in out.values()), out
    total(out).backward()
    for label, parameter in model.named_parameters():
        assert not parameter.requires_grad or torch.isfinite(parameter.grad).all(), label


# ---- two ranks


def one_rank(rank, folder):
    torch.set_num_threads(1)
    torch.distributed.init_process_group('gloo', init_method=f'file://{folder}/store', rank=rank, world_size=2)
    for kind in ('DINO', 'iBOT'):
        model = build(kind).double()
        if kind == 'iBOT':
            model.masker = Given(uneven_mask().view(2, 3, 16)[:, slice(rank, rank + 1)].flatten(0, 1))
        wrapped = DistributedDataParallel(model)
        model.begin_step(Clock(0, 0, 1, 0.1, 1))
        out = wrapped([view[rank : rank + 1] for view in views()], mode='loss')
        total(out).backward()
        torch.save(
            (dict((k, float(v)) for k, v in out.items()), {n: p.grad for n, p in model.named_parameters()},
             {n: b for n, b in model.named_buffers() if n.endswith('centre.mean')}),
            f'{folder}/{kind}{rank}.pt',
        )  # fmt: skip
    torch.distributed.destroy_process_group()


def test_two_ranks_are_one_with_the_whole_batch(tmp_path):
    spawn(one_rank, str(tmp_path))
    for kind in ('DINO', 'iBOT'):
        model = build(kind).double()
        if kind == 'iBOT':
            model.masker = Given(uneven_mask().view(2, 3, 16)[:, :2].flatten(0, 1))
        model.begin_step(Clock(0, 0, 1, 0.1, 1))
        out = model.loss([view[:2] for view in views()])
        total(out).backward()
        ranks = [torch.load(tmp_path / f'{kind}{rank}.pt') for rank in range(2)]
        for name in (n for n in out if 'loss' in n):
            assert sum(r[0][name] for r in ranks) / 2 == pytest.approx(float(out[name]), abs=1e-5)
        for _, gradients, centres in ranks:
            for name, parameter in model.named_parameters():
                if parameter.grad is not None:
                    torch.testing.assert_close(gradients[name], parameter.grad, rtol=1e-5, atol=1e-8)
            for name, buffer in model.named_buffers():
                if name in centres:
                    torch.testing.assert_close(centres[name], buffer, rtol=1e-5, atol=1e-8)


def test_a_centre_follows_the_mean():
    centre, logits = Centre(4, 0.9), torch.randn(3, 5, 4)
    centre.follow(logits)
    torch.testing.assert_close(centre.mean, 0.1 * logits.mean(dim=(0, 1)))


def test_a_mean_of_logits_counts_as_many_as_it_is_of(monkeypatch):
    mine, other = torch.randn(5, 4), torch.randn(15, 4)
    theirs = torch.cat([other.sum(0), torch.tensor([15.0])])
    monkeypatch.setattr('mim_mm.algorithms.distillation.all_reduce', lambda total: total.add_(theirs))
    centre = Centre(4, 0.9)
    centre.follow(mine.mean(0, keepdim=True), each=5)
    torch.testing.assert_close(centre.mean, 0.1 * torch.cat([mine, other]).mean(0))


# ---- DINO with masked views


MASKED = dict(
    masker=dict(type='AttMask', variant='low', ratio=0.5, hide_prob=0.5), restore_weight=0.7,
    decoder=dict(type='mmpretrain.SimMIMLinearDecoder', in_channels=32, encoder_stride=8),
)  # fmt: skip


def test_masked_dino_is_dino_on_masked_views_and_a_restoring_loss():
    model = build('MaskedDINO', **MASKED).double()
    state, inputs, mask = dict(model.state_dict()), views(), uneven_mask()
    model.masker = Given(mask)
    model.begin_step(Clock(0, 1, 1, 0.1, 1))
    out = model.loss(inputs)
    whole = torch.cat(inputs[:2])
    student = dict(part(state, 'backbone.'), mask_token=state['mask_token'])
    seen = run_vit(student, whole, mask)
    taught = run_head(part(state, 'teacher.head.'), run_vit(part(state, 'teacher.backbone.'), whole)[:, 0])
    classes = [*seen[:, 0].chunk(2), *(run_vit(student, small)[:, 0] for small in inputs[2:])]
    said = [run_head(part(state, 'head.'), x) for x in classes]
    wanted = (taught / numpy.linspace(0.04, 0.07, 3)[1]).softmax(-1).chunk(2)
    terms = [
        -(wanted[q] * (said[v] / 0.1).log_softmax(-1)).sum(-1).mean() for q in range(2) for v in range(4) if v != q
    ]
    assert float(out['loss_cls'].detach()) == pytest.approx(float(sum(terms)) / 6, abs=1e-10)
    weight, bias = (state[f'decoder.decoder.0.{name}'] for name in ('weight', 'bias'))
    error = 0
    for image, tokens in zip(whole, seen[:, 1:]):
        for place, token in enumerate(tokens):  # 3 x 8 x 8 values of each patch, channel by channel
            row, column = 8 * (place // 4), 8 * (place % 4)
            values = (weight[:, :, 0, 0] @ token + bias).view(3, 8, 8)
            error += (values - image[:, row : row + 8, column : column + 8]).abs().sum()
    assert float(out['loss_restore'].detach()) == pytest.approx(0.7 * float(error) / whole.numel(), abs=1e-10)
    total(out).backward()
    assert not [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]


def test_masked_dino_hides_some_of_the_least_attended():
    model = build('MaskedDINO', **MASKED)
    whole = torch.cat(views(batch=40, dtype=torch.float32)[:2])
    hidden, attention = model.plan(whole, torch.Generator().manual_seed(0)).mask[:, 0], model.teach(whole)[1]
    candidates = attention.argsort(dim=1).argsort(dim=1) < 8
    assert not (hidden & ~candidates).any()
    assert float(hidden[candidates].float().mean()) == pytest.approx(0.5, abs=0.06)


def test_what_nobody_published_must_be_stated():
    for change in (dict(restore_weight=None), dict(masker=dict(MASKED['masker'], hide_prob=None))):
        with pytest.raises(ValueError, match='not published'):
            build('MaskedDINO', **{**MASKED, **change})
    cfg = load('dino/dino_masked_low_vits_100e.py')
    with pytest.raises(ValueError, match='not published'), torch.device('meta'):
        MODELS.build(copy.deepcopy(cfg.model))
    cfg.merge_from_dict({'model.masker.ratio': 0.3, 'model.masker.hide_prob': 0.4, 'model.restore_weight': 1.0})
    with torch.device('meta'):
        assert MODELS.build(cfg.model).masker.counts(196)[0].hidden == 24
    with pytest.raises(ValueError, match='hide_prob=0.5 must'):
        MODELS.build(dict(type='mim_mm.AttMask', variant='hint', hide_prob=0.5))
