"""CMAE against a plain restatement, by hand where there is something to compute, on two ranks and through a Runner."""

import copy

import cmae_restated
import pytest
import torch
from mmengine.runner import Runner
from processes import spawn
from tiny import build_cmae, images, total_loss
from tiny_run import Killed, StopHook, shrunken
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from mim_mm.algorithms.batch_norm import GlobalBatchNorm
from mim_mm.algorithms.cmae import over_patches
from mim_mm.checkpoint.atomic import latest_checkpoint
from mim_mm.clock import Clock
from mim_mm.encoders.mask_units import MaskUnits
from mim_mm.masking import MaskPlan


def cmae(**options):
    """With a target encoder and biases that are not what they start as."""
    torch.manual_seed(0)
    model = build_cmae(**options)
    model.init_weights()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad or name.startswith('target'):
                parameter.add_(0.05 * torch.randn(parameter.shape))
    return model


def step(model, optimizer, views):
    optimizer.zero_grad()
    out = model(views, mode='loss')
    total_loss(out).backward()
    optimizer.step()
    model.end_step()
    return out


@pytest.mark.parametrize('unit', [None, 16])
def test_two_steps_are_those_of_the_plain_restatement(unit, monkeypatch):
    monkeypatch.setattr(torch.Tensor, 'float', torch.Tensor.double)  # losses are in fp32 otherwise
    model = cmae(mask_unit=unit, masker=dict(type='RandomMasking', ratio=0.5)).double()
    state = {name: value.detach().clone() for name, value in model.state_dict().items()}
    trained = {n: state[n].requires_grad_() for n, p in model.named_parameters() if p.requires_grad}
    mine = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    plain = torch.optim.AdamW(trained.values(), lr=1e-3)
    for number in range(2):
        views = [images(4, seed=10 * number).double(), images(4, seed=10 * number + 1).double()]
        model.mask_generator = torch.Generator().manual_seed(number)
        hidden = model.plan(views[0], model.mask_generator).mask[:, 0]
        assert hidden.sum() == 4 * 8
        model.mask_generator.manual_seed(number)
        out = step(model, mine, views)
        pixels, contrast = cmae_restated.losses(state, *views, hidden)
        plain.zero_grad()
        (pixels + contrast).backward()
        assert abs(out['loss_whole'] - pixels) < 1e-10 and abs(out['loss_contrast'] - contrast) < 1e-10
        assert contrast > 0.05
        for name, value in trained.items():
            torch.testing.assert_close(model.get_parameter(name).grad, value.grad, rtol=1e-8, atol=1e-12)
        plain.step()
        with torch.no_grad():
            for part in ('backbone', 'projector'):
                for name in [n for n, _ in model.named_parameters() if n.startswith(f'{part}.')]:
                    state[f'target_{name}'].mul_(0.996).add_(0.004 * state[name])
        for name, value in dict(model.named_parameters()).items():
            # a bias in front of a batch norm has a gradient that is zero but for rounding
            torch.testing.assert_close(value, state[name], rtol=1e-6, atol=1e-5 if 'fc0.bias' in name else 1e-8)


def test_it_starts_as_the_release():
    model = build_cmae()
    model.init_weights()
    for name in ('projector', 'predictor'):
        part = getattr(model, name)
        assert 0.9 < part.fc0.weight.abs().max() * part.fc0.in_features**0.5 <= 1  # torch's own: U(+-1/sqrt(in))
        assert part.fc0.bias.abs().max() > 0 and part.fc1.bias is None and part.bn0.eps == 1e-6
    for name in ('decoder', 'feature_decoder'):
        first = getattr(model, name).decoder_embed.weight
        assert 0.9 < first.abs().max() / (6 / sum(first.shape)) ** 0.5 <= 1  # Xavier
    for part in ('backbone', 'projector'):
        for own, followed in zip(getattr(model, f'target_{part}').parameters(), getattr(model, part).parameters()):
            assert torch.equal(own, followed) and not own.requires_grad


def test_targets_follow_and_keep_their_own_batch_statistics():
    model = cmae()
    before = copy.deepcopy(model.state_dict())
    step(model, torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1), [images(), images(seed=1)])
    after = model.state_dict()
    for name in ('backbone.layers.0.attn.qkv.weight', 'projector.fc1.weight'):
        torch.testing.assert_close(after[f'target_{name}'], 0.996 * before[f'target_{name}'] + 0.004 * after[name])
    assert not torch.equal(after['target_projector.bn0.running_mean'], after['projector.bn0.running_mean'])
    assert after['target_projector.bn0.num_batches_tracked'] == 1


def test_the_first_view_is_masked_and_the_second_is_not():
    """What the masker hides of the online view is not seen; every patch of the target view is."""
    model = cmae().eval()
    views = [images(), images(seed=1)]

    def contrast():
        model.mask_generator = torch.Generator().manual_seed(3)
        return model.loss(views)['loss_contrast']

    plan = model.plan(views[0], torch.Generator().manual_seed(3))
    first, spot = contrast(), plan.mask[0, 0].nonzero()[0, 0]
    row, column = 8 * (spot // 4), 8 * (spot % 4)
    views[0][0, :, row : row + 8, column : column + 8] += 5
    assert torch.equal(contrast(), first)
    views[1][0, :, row : row + 8, column : column + 8] += 5
    assert not torch.equal(contrast(), first)
    for wrong in (views[0], views[:1], [*views, views[0]]):
        with pytest.raises(ValueError, match='needs two views'):
            model.loss(wrong)


def test_whole_squares_are_hidden_and_visible_patches_stay_in_the_order_of_the_image():
    units = MaskUnits.cover(224, 224, 16, 32)
    scores = torch.rand(3, 1, 49, generator=torch.Generator().manual_seed(0))
    plan = over_patches(MaskPlan.from_scores(scores, 17), units)
    assert plan.num_visible == (68,) and plan.uniform
    squares = plan.mask.view(3, 7, 2, 7, 2)
    assert (squares == squares[:, :, :1, :, :1]).all() and squares[:, :, 0, :, 0].sum() == 3 * 32
    assert (plan.visible.diff(dim=-1) > 0).all() and (plan.hidden.diff(dim=-1) > 0).all()
    assert torch.equal(plan.order.sort(dim=-1).values, torch.arange(196).expand(3, 1, -1))
    ragged = over_patches(MaskPlan.from_lengths(scores.argsort(dim=-1), [17, 20, 5]), units)
    assert ragged.per_image.flatten().tolist() == [68, 80, 20]


def one_process(rank, folder):
    torch.set_num_threads(1)
    torch.distributed.init_process_group('gloo', init_method=f'file://{folder}/store', rank=rank, world_size=2)
    torch.save([trained(rank), normalised(rank)], f'{folder}/rank{rank}.pt')
    torch.distributed.destroy_process_group()


def trained(rank=None):
    """Two steps of half a batch each or, without a rank, of the whole: what is left, and the values of each."""
    rows = slice(None) if rank is None else slice(4 * rank, 4 * rank + 4)
    model = cmae()
    model.draw_plan = lambda tokens, generator: MaskPlan.from_scores(SCORES[rows], 4)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    wrapped = model if rank is None else DistributedDataParallel(model)
    values = []
    for number in range(2):
        optimizer.zero_grad()
        out = wrapped([images(8, seed=number)[rows], images(8, seed=number + 9)[rows]], mode='loss')
        total_loss(out).backward()
        values.append(torch.stack([out['loss_whole'].detach(), out['loss_contrast'].detach()]))
        grads = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
        optimizer.step()
        model.end_step()
    return values, grads, model.state_dict()


SCORES = torch.rand(8, 1, 16, generator=torch.Generator().manual_seed(4))


def normalised(rank=None):
    """Rank 0 has five of seven vectors."""
    rows = slice(None) if rank is None else (slice(0, 5), slice(5, 7))[rank]
    torch.manual_seed(1)
    bn = GlobalBatchNorm(3, eps=1e-6) if rank is not None else nn.BatchNorm1d(3, eps=1e-6)
    nn.init.normal_(bn.weight)
    x = (100 + torch.randn(7, 3)).requires_grad_()
    y = bn(x[rows])
    (y * torch.arange(21.0).view(7, 3)[rows].sin()).sum().backward()
    evaluated = bn.eval()(x[rows]).detach()
    return y.detach(), x.grad[rows], bn.weight.grad, bn.running_mean, bn.running_var, evaluated


def test_two_ranks_are_one_with_the_doubled_batch(tmp_path):
    spawn(one_process, str(tmp_path))
    ranks = [torch.load(tmp_path / f'rank{rank}.pt', weights_only=True) for rank in range(2)]
    values, grads, state = trained()
    for number in range(2):
        mean = (ranks[0][0][0][number] + ranks[1][0][0][number]) / 2
        torch.testing.assert_close(mean, values[number], rtol=1e-5, atol=1e-6)
    for _, theirs, left in (rank[0] for rank in ranks):
        for name, grad in grads.items():
            torch.testing.assert_close(theirs[name], grad, rtol=1e-5, atol=1e-5)
        for name, value in state.items():
            torch.testing.assert_close(left[name], value, rtol=1e-5, atol=1e-5)

    wanted = normalised()
    for i, value in enumerate(wanted):
        mine = [rank[1][i] for rank in ranks]
        whole = torch.cat(mine) if value.dim() > 1 else mine[0] + mine[1] if i == 2 else mine[1]
        torch.testing.assert_close(whole, value, rtol=1e-5, atol=1e-4)


def run(image_folder, work_dir, name, stop=None, resume=False):
    cfg = shrunken('configs/cmae/cmae_vitb_300e.py', **{
        'model.mask_unit': 16, 'model.masker.ratio': 0.5, 'model.feature_decoder.embed_dims': 16,
        'model.feature_decoder.num_heads': 2, 'model.hidden_dims': 24, 'model.out_dims': 16,
        'train_dataloader.dataset.pipeline.3.size': 32,
        'train_dataloader.dataset.data_root': str(image_folder), 'train_dataloader.dataset.data_prefix': '',
        'train_cfg.max_epochs': 2, 'param_scheduler.0.end': 1, 'param_scheduler.1.begin': 1,
        'work_dir': str(work_dir), 'resume': resume,
        'load_from': str(latest_checkpoint(work_dir)) if resume else None,
    })  # fmt: skip
    cfg.experiment_name, cfg.log_level = name, 'ERROR'
    # Without random augmentation: its random state is the worker's, which starts anew when a run is resumed.
    pipeline = cfg.train_dataloader.dataset.pipeline
    pipeline[:3] = [dict(type='LoadImageFromFile'), dict(type='Resize', scale=(36, 36))]
    pipeline[-2].views = [dict(), dict()]
    runner = Runner.from_cfg(cfg)
    if stop:
        runner.register_hook(StopHook(stop), 'LOWEST')
    runner.train()
    return runner


def test_the_recipe_trains_and_a_resumed_run_goes_on_bit_for_bit(image_folder, tmp_path):
    whole = run(image_folder, tmp_path / 'whole', 'cmae-whole')
    with pytest.raises(Killed):
        run(image_folder, tmp_path / 'cut', 'cmae-cut', stop=1)
    resumed = run(image_folder, tmp_path / 'cut', 'cmae-resumed', resume=True)
    assert whole.iter == resumed.iter and whole.iter > 2
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name
    assert not torch.equal(whole.model.backbone.cls_token, whole.model.target_backbone.cls_token)


def test_a_step_is_replayed_from_its_clock():
    model = cmae()
    views = [images(), images(seed=1)]
    values = []
    for number in (5, 6, 5):
        model.begin_step(Clock(0, number, 0, 0.1))
        values.append(model.loss(views)['loss_whole'])
    assert torch.equal(values[0], values[2]) and not torch.equal(values[0], values[1])
