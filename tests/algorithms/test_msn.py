"""MSN against a plain restatement of its step, on two ranks, through a Runner; what its masks and rates are."""

import copy
import math

import pytest
import torch
import views_restated
from built_recipes import load
from masker_table import table
from processes import spawn
from tiny import images
from torch.nn.parallel import DistributedDataParallel
from view_methods import build_small, optimizer_of, run_recipe, shrunken_views

from mim_mm.algorithms.msn import balanced
from mim_mm.algorithms.teacher import build_momentum
from mim_mm.clock import Clock
from mim_mm.engine.start import guard
from mim_mm.engine.start.checks.parts import check_parts
from mim_mm.engine.start.checks.words import ConfigError
from mim_mm.masking import MaskPlan
from mim_mm.registry import MODELS, PARAM_SCHEDULERS

RECIPE = 'msn/msn_vits_800e.py'
STEPS = 10  # of the whole training
SMALL = {'model.prototypes': 12}


def build(**options):
    return build_small(RECIPE, **SMALL, **options)


def views(step=0, batch=4, dtype=torch.float64):
    return [images(batch, side, 10 * step + i).to(dtype) for i, side in enumerate((32, 32, 16, 16))]


def clock(step):
    return Clock(0, step, 0, step / STEPS, STEPS)


def total(out):
    return sum(value for name, value in out.items() if 'loss' in name)


def test_two_steps_are_those_of_the_plain_restatement(monkeypatch):
    """Losses, clipped gradients, weights, teacher, prototypes, running statistics; by the optimizer of the recipe."""
    monkeypatch.setattr(torch.Tensor, 'float', torch.Tensor.double)  # mmpretrain resamples positions in fp32
    cfg = shrunken_views(RECIPE, **SMALL, **{'optim_wrapper.clip_grad.max_norm': 0.5})
    model = build().double()
    wrapper = optimizer_of(model, cfg)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    trained = {n: state[n].requires_grad_() for n, p in model.named_parameters() if p.requires_grad}
    decayed = [v for n, v in trained.items() if v.dim() > 1 and n != 'prototypes']
    others = [v for n, v in trained.items() if v.dim() == 1 or n == 'prototypes']
    plain = torch.optim.AdamW([dict(params=decayed), dict(params=others, weight_decay=0.0)], 1e-3, weight_decay=0.04)
    for group in wrapper.optimizer.param_groups:  # the schedulers have not been built
        group['lr'] = 1e-3
    for step in range(2, 4):
        model.begin_step(clock(step))
        keep = ~model.plan(torch.cat(views(step)[1:2]), model.mask_generator).mask[0, 0]
        assert keep.sum() == 13  # of 16: floor(16 * 0.85)
        model.begin_step(clock(step))  # the same masks once more
        out = model.loss(views(step))
        wrapper.zero_grad()
        total(out).backward()
        wrapper._clip_grad()
        ran = {}
        assign, memax = views_restated.msn_losses(state, views(step), keep, ran)
        plain.zero_grad()
        (assign + memax).backward()
        assert out['loss_assign'].item() == pytest.approx(assign.item(), abs=1e-10)
        assert out['loss_memax'].item() == pytest.approx(memax.item(), abs=1e-10)
        assert torch.nn.utils.clip_grad_norm_([v for n, v in trained.items() if n != 'prototypes'], 0.5) > 0.5
        for name, value in trained.items():
            torch.testing.assert_close(model.get_parameter(name).grad, value.grad, rtol=1e-8, atol=1e-12)
        wrapper.optimizer.step(), plain.step()
        model.end_step()
        momentum = 0.996 + 0.004 * step / (1.25 * STEPS)
        with torch.no_grad():
            for name, value in ran.items():
                state[name].copy_(value)
            for name in [n for n, p in model.named_parameters() if n.startswith('teacher.')]:
                state[name].mul_(momentum).add_((1 - momentum) * state[name[8:]])
        for name, value in model.state_dict().items():
            if 'num_batches' not in name:
                torch.testing.assert_close(value, state[name], rtol=1e-6, atol=1e-8, msg=name)


def test_sinkhorn_shares_the_batch_out():
    probs = torch.tensor([[0.7, 0.2, 0.1], [0.6, 0.3, 0.1], [0.8, 0.1, 0.1]], dtype=torch.float64)
    assert torch.equal(balanced(probs, 0), probs)
    made = balanced(probs, 200)
    torch.testing.assert_close(made.sum(dim=1), torch.ones(3, dtype=torch.float64))
    torch.testing.assert_close(made.sum(dim=0), torch.ones(3, dtype=torch.float64))
    # The order is kept within what rows and columns allow: the ratio of any two by two is that of the start.
    torch.testing.assert_close(
        made[0, 0] * made[1, 1] / (made[0, 1] * made[1, 0]), torch.tensor(0.7 * 0.3 / (0.2 * 0.6)).double()
    )
    nobody = balanced(torch.tensor([[1.0, 0.0], [1.0, 0.0]]), 3)
    assert torch.equal(nobody, torch.tensor([[1.0, 0.0], [1.0, 0.0]]))


# ---- masks


def test_all_images_lose_the_same_patches_and_what_they_lose_is_not_seen():
    model, inputs = build().eval(), views(dtype=torch.float32)
    plan = model.plan(inputs[1], torch.Generator().manual_seed(3))
    assert (plan.mask == plan.mask[:1]).all() and plan.mask[0].sum() == 3

    def value():
        model.mask_generator = torch.Generator().manual_seed(3)
        return total(model.loss(inputs))

    before, place = value(), int(plan.mask[0, 0].nonzero()[0, 0])
    row, column = 8 * (place // 4), 8 * (place % 4)
    inputs[1][0, :, row : row + 8, column : column + 8] += 5
    assert torch.equal(value(), before)
    for other in (0, 2):  # the target and the small anchors are whole
        inputs[other][0, :, :8, :8] += 5
        after = value()
        assert not torch.equal(after, before)
        before = after
    ratio = MODELS.build(dict(type='mim_mm.RandomMasking', ratio=0.15, shared=True))
    assert ratio(torch.zeros(2, 196, 1)).num_visible == (166,)


def test_parts_of_unequal_length_are_anchors_of_their_image():
    """Packed sequences, sorted by length, come back in the order of the images: each as if it were alone."""
    model = build().double().eval()
    tokens = model.encoder.embed(views()[1])
    order = torch.rand(4, 2, 16, generator=torch.Generator().manual_seed(0)).argsort(dim=-1)
    lengths = torch.tensor([[9, 5], [12, 0], [3, 9], [5, 16]])
    model.draw_plan = lambda *args: MaskPlan.from_lengths(order, lengths)
    features, view = model.drop(tokens)
    assert view.tolist() == [0, 0, 1, 2, 2, 3, 3]
    present = [(b, k) for b in range(4) for k in range(2) if lengths[b, k]]
    for row, (b, k) in zip(features, present, strict=True):
        alone = model.encoder.encode(tokens[b : b + 1], order[b : b + 1, k : k + 1, : lengths[b, k]])[0, 0]
        torch.testing.assert_close(row, alone, rtol=1e-9, atol=1e-11)
    anchors, image = model.anchors(views()[1:])
    assert len(anchors) == len(image) == 7 + 8 and image[7:].tolist() == [0, 1, 2, 3] * 2


@pytest.mark.parametrize('name', sorted(table()))
def test_it_trains_under_maskers(name):
    model, inputs = build(), views(dtype=torch.float32)
    model.masker = MODELS.build(dict(table()[name], _scope_='mim_mm'))
    model.begin_step(clock(1))
    out = model.loss(inputs)
    assert all(torch.isfinite(value) for value in out.values()), out
    total(out).backward()
    for label, parameter in model.named_parameters():
        assert not parameter.requires_grad or torch.isfinite(parameter.grad).all(), label
    assert model.prototypes.grad.abs().sum() > 0


def test_an_entropy_term_is_there_where_it_has_a_weight():
    plain, weighed = build(), build(**{'model.entropy_weight': 0.5})
    for model in (plain, weighed):
        model.begin_step(clock(1))
    a, b = (model.loss(views(dtype=torch.float32)) for model in (plain, weighed))
    assert 'loss_entropy' not in a and float(b['loss_entropy']) == pytest.approx(0.5 * float(b['anchor_entropy']))
    assert float(a['loss_assign']) == float(b['loss_assign'])


# ---- rates


def test_rates_and_momentum_are_those_of_the_release():
    """Its schedulers count before they look; the wave of rate and decay ends at 1.25 of the training."""
    length, epochs = 7, 40
    steps, warm = length * epochs, 15 * length
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(2))], 1e-3, weight_decay=0.04)
    made = []
    for settings in load(RECIPE).param_scheduler:
        settings = dict(settings, end=settings.get('end', epochs), type='mim_mm.' + settings.type)
        made.append(PARAM_SCHEDULERS.build(settings, default_args=dict(optimizer=optimizer, epoch_length=length)))
    horizon = int(1.25 * steps)
    for step in range(steps):
        t = step + 1
        rate = 2e-4 + t / warm * 8e-4
        if t >= warm:
            rate = 1e-6 + (1e-3 - 1e-6) * 0.5 * (1 + math.cos(math.pi * (t - warm) / (horizon - warm)))
        decay = 0.4 + (0.04 - 0.4) * 0.5 * (1 + math.cos(math.pi * t / horizon))
        group = optimizer.param_groups[0]
        assert (group['lr'], group['weight_decay']) == pytest.approx((rate, decay), abs=1e-15), step
        optimizer.step()
        for scheduler in made:
            scheduler.step()
    momentum = build_momentum(dict(load(RECIPE).model.momentum))
    for step in (0, 3, 8):
        assert momentum(clock(step)) == pytest.approx(0.996 + step * 0.004 / (1.25 * STEPS), abs=1e-15)


def test_what_is_decayed_and_clipped():
    model, cfg = build(), shrunken_views(RECIPE)
    names = {id(p): n for n, p in model.named_parameters()}
    for group in optimizer_of(model, cfg).optimizer.param_groups:
        for parameter in group['params']:
            name = names[id(parameter)]
            flat = parameter.dim() == 1 or name == 'prototypes'
            assert group['weight_decay'] == (0.0 if flat else 0.04), name
            assert group.get('clip', True) == (name != 'prototypes')


def test_what_does_not_fit_is_refused():
    model = build()
    for wrong in (views()[0], views()[:1], views()[1:2] + views()[2:]):
        with pytest.raises(ValueError, match='a target and a large anchor.*imagenet_msn_views'):
            model.loss(wrong)
    for options, match in (
        ({'model.sharpen': 0}, 'must be above 0'), ({'model.memax_weight': -1}, 'not below'),
        ({'model.momentum.stretch': 0.5}, 'stretch is 0.5'), ({'model.momentum.shape': 'steps'}, "shape='linear'"),
        ({'model.backbone.with_cls_token': False, 'model.backbone.out_type': 'avg_featmap'}, 'no class token'),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=match):
            build(**options)
    cfg = load(RECIPE)
    cfg.optim_wrapper.accumulative_counts = 4
    with pytest.raises(ConfigError, match='Sinkhorn assignments'):
        check_parts(cfg)


# ---- two ranks, a run


def two_steps(rank=None):
    """Rank 0 has five of eight images: nothing counts by the rank."""
    rows = slice(None) if rank is None else (slice(0, 5), slice(5, 8))[rank]
    model = build().double()
    order = torch.randperm(16, generator=torch.Generator().manual_seed(7))
    model.draw_plan = lambda tokens, generator: MaskPlan(order.expand(len(tokens), 1, -1).contiguous(), (13,))
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    wrapped = model if rank is None else DistributedDataParallel(model)
    values = []
    for step in range(2):
        model.begin_step(clock(step))
        out = wrapped([view[rows] for view in views(step, batch=8)], mode='loss')
        optimizer.zero_grad()
        total(out).backward()
        values.append([float(out[name].detach()) for name in ('loss_assign', 'loss_memax')])
        grads = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
        optimizer.step()
        model.end_step()
    return values, grads, model.state_dict()


def one_rank(rank, folder):
    torch.set_num_threads(1)
    torch.distributed.init_process_group('gloo', init_method=f'file://{folder}/store', rank=rank, world_size=2)
    torch.save(two_steps(rank), f'{folder}/rank{rank}.pt')
    torch.distributed.destroy_process_group()


def test_two_ranks_are_one_with_the_whole_batch(tmp_path):
    spawn(one_rank, str(tmp_path))
    ranks = [torch.load(tmp_path / f'rank{rank}.pt', weights_only=True) for rank in range(2)]
    values, grads, state = two_steps()
    for step, (assign, memax) in enumerate(values):
        first, second = (rank[0][step] for rank in ranks)
        assert (5 * first[0] + 3 * second[0]) / 8 == pytest.approx(assign, abs=1e-6)
        assert first[1] == pytest.approx(memax, abs=1e-6) and second[1] == pytest.approx(memax, abs=1e-6)
    for _, theirs, left in ranks:
        for name, grad in grads.items():
            torch.testing.assert_close(theirs[name], grad, rtol=1e-5, atol=1e-6)
        for name, value in state.items():
            torch.testing.assert_close(left[name], value, rtol=1e-5, atol=1e-6)


def test_the_recipe_trains_and_a_resumed_run_goes_on_bit_for_bit(image_folder, tmp_path):
    cfg = shrunken_views(RECIPE, **SMALL)
    whole = run_recipe(copy.deepcopy(cfg), image_folder, tmp_path / 'whole', 'msn-whole')
    run_recipe(copy.deepcopy(cfg), image_folder, tmp_path / 'cut', 'msn-cut', stop=1)
    resumed = run_recipe(copy.deepcopy(cfg), image_folder, tmp_path / 'cut', 'msn-resumed', resume=True)
    assert whole.iter == resumed.iter and whole.iter > 2
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name
    assert not torch.equal(whole.model.backbone.cls_token, whole.model.teacher['backbone'].cls_token)
    assert whole.message_hub.get_scalar('train/feature_rank').current() > 1


def test_recipes_state_what_the_release_does():
    for size, epochs, width, ratio in (('s', 800, 384, 0.15), ('b', 600, 768, 0.3), ('l', 600, 1024, 0.3)):
        cfg = load(f'msn/msn_vit{size}_{epochs}e.py')
        guard.check_config(cfg)
        with torch.device('meta'):
            model = MODELS.build(cfg.model)
        assert model.encoder.width == width and model.prototypes.shape == (1024, 256)
        assert dict(cfg.model.masker) == dict(type='RandomMasking', ratio=ratio, shared=True)
        assert cfg.train_cfg.max_epochs == epochs and cfg.optim_wrapper.clip_grad == dict(max_norm=3.0)
        assert cfg.auto_scale_lr.base_batch_size == 8 * cfg.train_dataloader.batch_size == 1024
        large, small = cfg.train_dataloader.dataset.pipeline[1].views
        assert (large.num, large.crop_ratio_range, small.num, small.crop_ratio_range) == (
            2,
            (0.3, 1.0),
            10,
            (0.05, 0.3),
        )


def test_salience_recipes_drop_what_they_say():
    for folder, ratio in (('sbam', 0.15), ('amr', dict(type='AdaptiveRatio', base=0.15, delta_r=0.1, threshold=0.5,
                                                       scope='per_image'))):  # fmt: skip
        cfg = load(f'{folder}/{folder}_msn_vits_800e.py')
        guard.check_config(cfg)
        assert cfg.model.type == 'MSN' and dict(cfg.model.masker, ratio=0) == dict(
            type='SalienceMasking', ratio=0, random_epochs=100
        )
        assert cfg.model.masker.ratio == ratio
        assert [hook.type for hook in cfg.custom_hooks] == ['CollapseHook', 'MaskDiagnosticsHook']
