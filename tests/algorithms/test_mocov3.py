"""MoCo v3 against a plain restatement and mmpretrain's class, on two ranks, through a Runner; what stays fixed."""

import copy

import pytest
import torch
import views_restated
from built_recipes import load
from mmengine.logging import MessageHub
from processes import spawn
from tiny import VIT, images
from torch.nn.parallel import DistributedDataParallel
from view_methods import build_small, optimizer_of, run_recipe, shrunken_views

from mim_mm.clock import Clock
from mim_mm.engine.start import guard
from mim_mm.engine.start.checks.parts import check_parts
from mim_mm.engine.start.checks.words import ConfigError
from mim_mm.recipe_facts import pretraining
from mim_mm.registry import MODELS
from mim_mm.report.published import matching_rows

RECIPE = 'mocov3/mocov3_vitb_300e.py'
FIXED = {'backbone.pos_embed', 'backbone.patch_embed.projection.weight', 'backbone.patch_embed.projection.bias'}
STEPS = 10  # of the whole training


def views(step=0, batch=4, dtype=torch.float64):
    return [images(batch, seed=10 * step + i).to(dtype) for i in range(2)]


def clock(step):
    return Clock(0, step, 0, step / STEPS, STEPS)


def is_weight(name):
    return 'running' not in name and 'num_batches' not in name


def test_two_steps_are_those_of_the_plain_restatement():
    """Losses, gradients, weights, momentum encoder and running statistics, by the optimizer of the recipe."""
    cfg = shrunken_views(RECIPE)
    model = build_small(RECIPE).double()
    wrapper = optimizer_of(model, cfg)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    trained = {n: state[n].requires_grad_() for n, p in model.named_parameters() if p.requires_grad}
    plain = torch.optim.AdamW(trained.values(), lr=1.5e-4 * 4096 / 256, weight_decay=0.1)  # all of them are decayed
    for step in range(2, 4):
        model.begin_step(clock(step))
        out = model.loss(views(step))
        wrapper.zero_grad()
        out['loss_contrast'].backward()
        momentum = views_restated.moco_momentum(step / STEPS)
        with torch.no_grad():
            for name in filter(is_weight, [n for n in state if n.startswith('teacher.')]):
                state[name].mul_(momentum).add_((1 - momentum) * state[name[8:]])
        ran = {}
        loss = views_restated.moco_loss(state, views(step), ran)
        plain.zero_grad()
        loss.backward()
        assert out['loss_contrast'].item() == pytest.approx(loss.item(), abs=1e-10) and loss > 0.5
        for name, value in trained.items():
            torch.testing.assert_close(model.get_parameter(name).grad, value.grad, rtol=1e-8, atol=1e-12)
        wrapper.optimizer.step(), plain.step()
        model.end_step()
        with torch.no_grad():
            for name, value in ran.items():
                state[name].copy_(value)
        for name, value in model.state_dict().items():
            if 'num_batches' not in name:
                torch.testing.assert_close(value, state[name], rtol=1e-6, atol=1e-8, msg=name)


def test_two_steps_are_those_of_the_class_of_mmpretrain():
    """Which begins with a momentum encoder that is the encoder, and follows by its own count of steps."""
    torch.manual_seed(0)
    own = MODELS.build(dict(type='MoCoV3', backbone=copy.deepcopy(VIT), hidden_dims=24, out_dims=16)).double().train()
    layers = dict(type='NonLinearNeck', hid_channels=24, out_channels=16, with_last_bn_affine=False,
                  with_avg_pool=False, norm_cfg=dict(type='BN1d'))  # fmt: skip
    head = dict(type='MoCoV3Head', temperature=0.2, predictor=dict(layers, in_channels=16, num_layers=2),
                loss=dict(type='CrossEntropyLoss', loss_weight=0.4))  # fmt: skip
    backbone = {k: v for k, v in VIT.items() if k not in ('type', 'out_type')}
    theirs = MODELS.build(dict(
        type='mmpretrain.MoCoV3', base_momentum=0.01, head=head, neck=dict(layers, in_channels=32, num_layers=3),
        backbone=dict(backbone, type='MoCoV3ViT', stop_grad_conv1=True), _scope_='mmpretrain',
    )).double().train()  # fmt: skip
    state = own.state_dict()
    names = {'head.predictor.': 'predictor.', 'neck.': 'projector.', 'backbone.': 'backbone.'}
    with torch.no_grad():
        for name, value in theirs.state_dict().items():
            for there, here in names.items():
                if name.startswith(there):
                    value.copy_(state[here + name[len(there) :]])
    theirs.backbone.pos_embed.requires_grad_(False)
    MessageHub.get_current_instance().update_info('max_iters', STEPS)
    optimizers = [torch.optim.AdamW([p for p in m.parameters() if p.requires_grad], 1e-3) for m in (own, theirs)]
    for step in range(2):
        own.begin_step(clock(step))
        values = own.loss(views(step))['loss_contrast'], theirs.loss(views(step), [])['loss']
        assert float(values[0].detach()) == pytest.approx(
            float(values[1].detach()), abs=1e-9
        )  # its momentum is a number of 32 bits
        for optimizer, value in zip(optimizers, values):
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
        own.end_step()
    for name, value in theirs.named_parameters():
        for there, here in {**names, 'momentum_encoder.module.0.': 'teacher.backbone.'}.items():
            if name.startswith(there):
                torch.testing.assert_close(value, own.get_parameter(here + name[len(there) :]), rtol=1e-6, atol=1e-8)


def learned_start(folder):
    """A checkpoint of an encoder with positions of its own."""
    torch.manual_seed(5)
    backbone = MODELS.build(dict(VIT))
    with torch.no_grad():
        backbone.pos_embed.normal_()
    torch.save({'state_dict': backbone.state_dict()}, folder / 'start.pth')
    return dict(type='Pretrained', checkpoint=str(folder / 'start.pth')), backbone.state_dict()


@pytest.mark.parametrize('loaded', [False, True])
def test_patch_embedding_and_positions_stay_fixed_whatever_they_start_as(loaded, tmp_path):
    cfg, wanted = shrunken_views(RECIPE), None
    if loaded:
        cfg.model.backbone.init_cfg, wanted = learned_start(tmp_path)
    model = MODELS.build(cfg.model).train()
    wrapper = optimizer_of(model, cfg)  # as the Runner, before the weights are there
    model.init_weights()
    before = copy.deepcopy(model.state_dict())
    if loaded:
        for name, value in wanted.items():
            assert torch.equal(before[f'backbone.{name}'], value) and torch.equal(
                before[f'teacher.backbone.{name}'], value
            )
    for step in range(2):
        model.begin_step(clock(step + 1))
        wrapper.update_params(model.loss(views(dtype=torch.float32))['loss_contrast'])
        model.end_step()
    still = {n for n, p in model.named_parameters() if torch.equal(p, before[n]) and not n.startswith('teacher.')}
    assert (
        still == FIXED == {n for n, p in model.named_parameters() if not (p.requires_grad or n.startswith('teacher.'))}
    )
    # An average of equal numbers, but for rounding.
    torch.testing.assert_close(model.teacher['backbone'].pos_embed, model.backbone.pos_embed, rtol=1e-6, atol=0)


def test_the_patch_embedding_can_be_trained():
    model = build_small(RECIPE, **{'model.freeze_patches': False})
    model.loss(views(dtype=torch.float32))['loss_contrast'].backward()
    assert model.backbone.patch_embed.projection.weight.grad.abs().max() > 0
    assert model.backbone.pos_embed.grad is None


def test_the_momentum_encoder_follows_once_an_optimizer_step_and_only_in_training():
    model = build_small(RECIPE)
    before = copy.deepcopy(model.teacher.state_dict())

    def moved():
        return {k for k, v in model.teacher.state_dict().items() if is_weight(k) and not torch.equal(v, before[k])}

    inputs = views(dtype=torch.float32)
    model.loss(inputs)  # nobody has told the time
    assert not moved()
    model.begin_step(clock(1))
    model.eval().loss(inputs)
    assert not moved()
    model.train().loss(inputs)
    assert moved()
    once = copy.deepcopy(model.teacher.state_dict())
    model.begin_step(clock(2))
    model.loss(inputs)  # the second micro-batch of the same optimizer step
    assert all(torch.equal(v, once[k]) for k, v in model.teacher.state_dict().items() if is_weight(k))
    model.end_step()
    model.begin_step(clock(3))
    model.loss(inputs)
    assert not torch.equal(model.teacher['projector'].fc0.weight, once['projector.fc0.weight'])


def test_what_does_not_fit_is_refused():
    model = build_small(RECIPE)
    for wrong in (views()[0], views()[:1], [*views(), views()[0]], [views()[0], views()[1][..., :16, :16]]):
        with pytest.raises(ValueError, match='two views of one size.*imagenet_moco_views'):
            model.loss(wrong)
    with pytest.raises(ValueError, match='temperature is 0'):
        build_small(RECIPE, **{'model.temperature': 0})
    with pytest.raises(ValueError, match='no class token'):
        build_small(RECIPE, **{'model.backbone.with_cls_token': False, 'model.backbone.out_type': 'avg_featmap'})
    cfg = load(RECIPE)
    cfg.optim_wrapper.accumulative_counts = 4
    with pytest.raises(ConfigError, match='negatives and BatchNorm statistics'):
        check_parts(cfg)
    cfg.allow_accumulation = True
    check_parts(cfg)


def two_steps(rank=None):
    """Of half a batch each or, without a rank, of the whole: what is left, and the values of each."""
    rows = slice(None) if rank is None else slice(4 * rank, 4 * rank + 4)
    model = build_small(RECIPE).double()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    wrapped = model if rank is None else DistributedDataParallel(model)
    values = []
    for step in range(2):
        model.begin_step(clock(step))
        out = wrapped([view[rows] for view in views(step, batch=8)], mode='loss')
        optimizer.zero_grad()
        out['loss_contrast'].backward()
        values.append(float(out['loss_contrast'].detach()))
        grads = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
        optimizer.step()
        model.end_step()
    return values, grads, model.state_dict()


def one_rank(rank, folder):
    torch.set_num_threads(1)
    torch.distributed.init_process_group('gloo', init_method=f'file://{folder}/store', rank=rank, world_size=2)
    torch.save(two_steps(rank), f'{folder}/rank{rank}.pt')
    torch.distributed.destroy_process_group()


def test_two_ranks_are_one_with_the_doubled_batch(tmp_path):
    spawn(one_rank, str(tmp_path))
    ranks = [torch.load(tmp_path / f'rank{rank}.pt', weights_only=True) for rank in range(2)]
    values, grads, state = two_steps()
    assert [sum(pair) / 2 for pair in zip(ranks[0][0], ranks[1][0])] == pytest.approx(values, abs=1e-6)
    for _, theirs, left in ranks:
        for name, grad in grads.items():
            torch.testing.assert_close(theirs[name], grad, rtol=1e-5, atol=1e-7)
        for name, value in state.items():
            torch.testing.assert_close(left[name], value, rtol=1e-5, atol=1e-7)


def test_the_recipe_trains_and_a_resumed_run_goes_on_bit_for_bit(image_folder, tmp_path):
    whole = run_recipe(shrunken_views(RECIPE), image_folder, tmp_path / 'whole', 'moco-whole')
    run_recipe(shrunken_views(RECIPE), image_folder, tmp_path / 'cut', 'moco-cut', stop=1)
    resumed = run_recipe(shrunken_views(RECIPE), image_folder, tmp_path / 'cut', 'moco-resumed', resume=True)
    assert whole.iter == resumed.iter and whole.iter > 2
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name
    assert not torch.equal(whole.model.backbone.cls_token, whole.model.teacher['backbone'].cls_token)
    assert whole.message_hub.get_scalar('train/feature_rank').current() > 1


def test_recipes_state_what_the_release_does():
    for size, heads in (('s', 12), ('b', 12)):
        cfg = load(f'mocov3/mocov3_vit{size}_300e.py')
        guard.check_config(cfg)
        with torch.device('meta'):
            model = MODELS.build(cfg.model)
        assert model.encoder.heads == heads and model.encoder.width == {'s': 384, 'b': 768}[size]
        assert (model.projector.fc0.out_features, model.predictor.fc1.out_features) == (4096, 256)
        assert cfg.optim_wrapper.optimizer.lr == pytest.approx(1.5e-4 * 4096 / 256)
        assert cfg.optim_wrapper.optimizer.weight_decay == 0.1 and 'clip_grad' not in cfg.optim_wrapper
        assert cfg.auto_scale_lr.base_batch_size == 8 * cfg.train_dataloader.batch_size == 4096
        assert (cfg.train_cfg.max_epochs, cfg.param_scheduler[0].end, cfg.model.temperature) == (300, 40, 0.2)
        first, second = cfg.train_dataloader.dataset.pipeline[1].views
        assert first.crop_ratio_range == second.crop_ratio_range == (0.08, 1.0)
        assert (first.colours.blur_prob, second.colours.blur_prob, second.colours.solarise_prob) == (1.0, 0.1, 0.2)
        assert cfg.train_dataloader.dataset.pipeline[1].interpolation == 'bilinear'
        decayed = optimizer_of(model, cfg).optimizer.param_groups
        assert {group['weight_decay'] for group in decayed} == {0.1}


def test_it_stands_beside_the_rows_of_its_name_and_what_is_no_published_method_beside_none():
    facts = dict(pretraining(load(RECIPE)), backbone='ViT-B/16', pretrain_data='IN-1k')
    own = matching_rows(facts)[0]
    assert facts['method'] == own['method'] == 'MoCo v3' and own['own'] and own['values']['linear_top1'] == 76.2
    unpublished = dict(
        pretraining(load('dino/dino_masked_low_vits_100e.py')), backbone='ViT-S/16', pretrain_data='IN-1k'
    )
    assert unpublished['method'] == 'MaskedDINO' and matching_rows(unpublished) == []
