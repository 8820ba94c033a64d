"""The clock in real training loops, epoch-based and iteration-based, fresh and resumed; what follows from it."""

import math
import types

import pytest
import torch
from tiny import build, images
from toy_run import run

from mim_mm.algorithms.base import Pretraining, Terms
from mim_mm.clock import Clock, mask_seed
from mim_mm.engine.hooks.clock_hook import ClockHook, ConsistencyRampHook, MaskerEpochHook, MaskSeedHook
from mim_mm.masking import SalienceMasking
from mim_mm.registry import HOOKS


class Watching(Pretraining):
    """Writes down what it is told, and the masks it draws."""

    def __init__(self, masker=None):
        super().__init__(dict(type='mim_mm.RandomMasking', ratio=0.5))
        self.masker = masker or self.masker
        self.backbone = torch.nn.Linear(4, 4)
        self.told, self.masks, self.ended = [], [], []

    def begin_step(self, clock):
        super().begin_step(clock)
        self.told.append(clock)

    def end_step(self):
        super().end_step()
        self.ended.append(self.clock.step)

    def loss(self, inputs, data_samples=None):
        plan = self.draw_plan(inputs, self.mask_generator)
        self.masks.append(plan.mask)
        value = (self.backbone(inputs) * plan.mask[:, 0, :, None]).square().mean()
        return self.outcome(Terms({'loss': value}, {}), dict)


def test_every_step_is_told_also_after_a_resume(tmp_path):
    whole = Watching()
    run(tmp_path / 'whole', whole, dict(by_epoch=True, max_epochs=4))
    assert whole.told == [Clock(7, step, step // 3, step / 12, 3, 4) for step in range(12)]
    assert whole.ended == list(range(12))
    first, second = Watching(), Watching()
    run(tmp_path / 'a', first, dict(by_epoch=True, max_epochs=2))
    run(tmp_path / 'a', second, dict(by_epoch=True, max_epochs=4), resume=True)
    assert second.told == whole.told[6:]
    assert all(map(torch.equal, [*first.masks, *second.masks], whole.masks))


def test_iterations_count_passes_over_the_data(tmp_path):
    model = Watching()
    run(tmp_path / 'b', model, dict(by_epoch=False, max_iters=8))
    assert [clock.epoch for clock in model.told] == [0] * 3 + [1] * 3 + [2] * 2
    assert [clock.share for clock in model.told] == [step / 8 for step in range(8)]


def test_with_accumulation_every_micro_batch_begins_and_every_optimizer_step_ends(tmp_path):
    model = Watching()
    run(tmp_path / 'c', model, dict(by_epoch=True, max_epochs=3), accumulate=2)
    assert [clock.step for clock in model.told] == list(range(9))
    assert model.ended == [1, 3, 5, 7, 8]  # the last step takes what is left
    assert not torch.equal(model.masks[0], model.masks[1])


def test_masks_are_those_of_seed_step_and_rank(tmp_path):
    model = Watching()
    run(tmp_path / 'd', model, dict(by_epoch=True, max_epochs=1))
    for step, mask in enumerate(model.masks):
        drawn = torch.rand(2, 4, generator=torch.Generator().manual_seed(((7 * 1_000_003) + step) * 2**20))
        assert torch.equal(mask[:, 0].nonzero()[:, 1].view(2, 2), drawn.argsort(1)[:, 2:].sort(1).values)


def test_mask_seeds_differ_by_step_and_rank():
    seeds = {mask_seed(seed, step, rank) for seed in range(3) for step in range(50) for rank in range(8)}
    assert len(seeds) == 3 * 50 * 8


def test_nobody_who_tells_leaves_masks_to_the_global_generator():
    model, inputs = Watching(), torch.randn(2, 4, 4)
    torch.manual_seed(3)
    model.loss(inputs)
    torch.manual_seed(3)
    drawn = torch.rand(2, 4).argsort(1)[:, 2:].sort(1).values
    assert torch.equal(model.masks[0][:, 0].nonzero()[:, 1].view(2, 2), drawn)


# ---- the names of before the clock


@pytest.mark.parametrize('hooks', [
    [MaskSeedHook(), MaskerEpochHook()],
    [MaskerEpochHook(), ClockHook()],
    [dict(type='mim_mm.MaskSeedHook', seed=7), ClockHook(), MaskerEpochHook()],
])  # fmt: skip
def test_recipes_of_before_the_clock_train_as_before(tmp_path, hooks):
    wanted, model = Watching(SalienceMasking(random_epochs=1)), Watching(SalienceMasking(random_epochs=1))
    for name, watching, chosen in (('new', wanted, None), ('old', model, hooks)):
        run(tmp_path / name, watching, dict(by_epoch=True, max_epochs=2), chosen)
    assert model.told == wanted.told and model.ended == wanted.ended, 'one of them acts, once a step'
    assert all(map(torch.equal, model.masks, wanted.masks))


def test_a_seed_of_its_own_wins_over_the_clock_of_the_runtime(tmp_path):
    model = Watching()
    run(tmp_path / 'e', model, dict(by_epoch=True, max_epochs=1), [ClockHook(), MaskSeedHook(seed=5)])
    assert [clock.seed for clock in model.told] == [5] * 3


def stub(model, **extra):
    hooks, lines = [], []
    logger = types.SimpleNamespace(warning=lines.append)
    return types.SimpleNamespace(
        model=model, hooks=hooks, logger=logger, lines=lines, iter=0, epoch=0, max_iters=40, seed=0, train_loop=None,
        train_dataloader=[None] * 10, **extra,
    )  # fmt: skip


@pytest.mark.parametrize('as_hook', [True, False])
def test_the_ramp_is_linear_and_ends_at_one(as_hook):
    model = build('EMAE', consistency_ramp=0 if as_hook else 2)
    hook = HOOKS.build(dict(type='ConsistencyRampHook', epochs=2) if as_hook else dict(type='ClockHook'))
    runner = stub(model)
    runner.hooks.append(hook)
    hook.before_train(runner)
    seen = []
    for runner.iter in (0, 5, 10, 20, 30):
        hook.before_train_iter(runner, 0)
        seen.append(model.consistency_scale.item())
    assert seen == pytest.approx([0, 0.25, 0.5, 1, 1])
    out = model.loss(images())
    torch.testing.assert_close(out['loss_consistency'].detach(), out['consistency'])
    model.begin_step(Clock(0, 5, 0, 0.0, 10))
    out = model.loss(images())
    torch.testing.assert_close(out['loss_consistency'].detach(), 0.25 * out['consistency'])


def test_ramps_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match='positive length'):
        HOOKS.build(dict(type='ConsistencyRampHook', epochs=0))
    with pytest.raises(ValueError, match='consistency_ramp is -1'):
        build('EMAE', consistency_ramp=-1)
    with pytest.raises(ValueError, match='training loader has none'):
        Clock(0, 3, None, 0.1, None).ramp(2)
    with pytest.raises(TypeError, match='MAE has no consistency term'):
        ConsistencyRampHook(2).before_train(stub(build('MAE')))


def test_other_models_are_left_alone_and_a_useless_seed_is_said():
    runner = stub(torch.nn.Linear(1, 1))
    hook = MaskSeedHook()
    runner.hooks.append(hook)
    hook.before_train(runner), hook.before_train_iter(runner, 0), hook.after_train_iter(runner, 0)
    assert 'Linear has no begin_step' in runner.lines[0]


def test_the_masker_knows_the_epoch_before_the_first_step():
    """ProgressiveResolutionHook tries the masker out in before_train."""
    model, hook = Watching(SalienceMasking(random_epochs=2)), ClockHook()
    runner = stub(model)
    runner.hooks.append(hook)
    runner.epoch = 2
    hook.before_train(runner)
    assert model.masker.clock.epoch == 2 and not model.masker.warming_up and not model.told


def test_without_a_clock_a_warm_up_stops_the_run():
    with pytest.raises(RuntimeError, match='ClockHook'):
        Watching(SalienceMasking(random_epochs=2)).loss(torch.randn(2, 4, 4))


# ---- what is optimised and what is only logged


@pytest.mark.parametrize('terms', [Terms({'mse': 1}, {}), Terms({'loss': 1}, {'loss_of_the_teacher': 1})])
def test_names_that_mmengine_would_take_otherwise_are_refused(terms):
    with pytest.raises(ValueError, match='optimises exactly what has "loss" in its name'):
        build('MAE').outcome(terms, dict)


def test_metrics_carry_no_gradient():
    value = torch.ones((), requires_grad=True) * math.pi
    out = build('MAE').outcome(Terms({'loss': value}, {'mse': value}), dict)
    assert out['loss'].requires_grad and not out['mse'].requires_grad
