"""Steps whose loss or gradient is not finite: left out without a trace, counted, gone back from, stopped, not saved."""

import copy
import itertools
import json
import math
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.logging import HistoryBuffer
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner
from processes import join, spawn, store
from torch import nn

from mim_mm.checkpoint.finite import newest_finite, not_finite_in_file
from mim_mm.engine.hooks import finite_hook
from mim_mm.engine.hooks.finite_hook import FiniteHook, NotFiniteError, spike_limit
from mim_mm.engine.hooks.histories import forget
from mim_mm.engine.optim.finite_step import FiniteStep
from mim_mm.engine.optim.lars import LARS
from mim_mm.engine.optim.precision import AutocastOptimWrapper

numbers = itertools.count()
OPTIMIZERS = {
    'adamw fused': lambda p: torch.optim.AdamW(p, 0.1, weight_decay=0.1, fused=True),
    'adamw': lambda p: torch.optim.AdamW(p, 0.1, weight_decay=0.1),
    'sgd fused': lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, weight_decay=0.1, fused=True),
    'sgd': lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, nesterov=True),
    'sgd dampened': lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, dampening=0.5, fused=True),
    'lars': lambda p: LARS(p, 0.1, weight_decay=0.01),
}


class Net(BaseModel):
    """A batch norm and two layers; ``inputs`` (B, 4)."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.norm, self.first, self.last = nn.BatchNorm1d(4), nn.Linear(4, 3), nn.Linear(3, 1)

    def forward(self, inputs, mode='loss', data_samples=None):
        return dict(loss=self.last(self.first(self.norm(inputs)).tanh()).square().mean())


def whole_state(model, optimizer):
    """Everything that a step may change, by value."""
    tensors = {name: value.clone() for name, value in model.state_dict().items()}
    for i, p in enumerate(model.parameters()):
        for key, value in optimizer.state.get(p, {}).items():
            if isinstance(value, torch.Tensor):
                tensors[f'{key} {i}'] = value.clone()
    return tensors


def same(one, other):
    keys = one.keys() | other.keys()  # state that is new is zero, as if it had just been made
    return all(
        torch.equal(one.get(k, torch.zeros_like(other.get(k, one.get(k)))), other.get(k, torch.zeros_like(one.get(k))))
        if k in one and k in other
        else not (one.get(k) if k in one else other[k]).any()
        for k in keys
    )


def steps(kind, bad, batches=6, clip=None, accumulate=1, way=None, guard=True, autocast=False):
    """Train; returns (model, optimizer, the step, whole states after each iteration)."""
    model = Net()
    optimizer = OPTIMIZERS[kind](model.parameters())
    wrapper_class, more = (AutocastOptimWrapper, dict(on_cpu=True)) if autocast else (OptimWrapper, {})
    wrapper = wrapper_class(optimizer=optimizer, accumulative_counts=accumulate, clip_grad=copy.deepcopy(clip), **more)
    wrapper.initialize_count_status(model, 0, batches)
    step = FiniteStep(wrapper, model, way=way)
    if guard:
        step.install()
    draws, states = torch.Generator().manual_seed(1), []
    for i in range(batches):
        inputs = torch.randn(8, 4, generator=draws)
        if i in bad:
            inputs[0, 0] = bad[i]
        step.begin(i)
        with wrapper.optim_context(model):
            loss = model(inputs)['loss']
        wrapper.update_params(loss)
        states.append(whole_state(model, optimizer))
    return model, optimizer, step, states


WAYS = [(kind, None) for kind in OPTIMIZERS] + [('sgd', 'restore'), ('lars', 'restore'), ('adamw', 'restore')]


@pytest.mark.parametrize(('kind', 'way'), WAYS)
@pytest.mark.parametrize('at', [0, 3])
def test_a_bad_step_leaves_no_bit_of_weights_state_or_statistics(kind, way, at):
    """The run goes on as one that never saw the batch: also where it is the first, before there is any state."""
    model, _, step, states = steps(kind, {at: math.nan}, way=way)
    if at:
        assert same(states[at], states[at - 1])
    assert step.counts.tolist()[:2] == [0, 1] and step.counts[2] == at
    assert all(value.isfinite().all() for value in states[-1].values())

    twin = Net()
    optimizer = OPTIMIZERS[kind](twin.parameters())
    draws = torch.Generator().manual_seed(1)
    for i in range(6):
        inputs = torch.randn(8, 4, generator=draws)
        if i != at:
            optimizer.zero_grad()
            twin(inputs)['loss'].backward()
            optimizer.step()
    assert same(states[-1], whole_state(twin, optimizer))


def test_each_way_is_taken_where_it_is_meant():
    found = {kind: steps(kind, {}, 1)[2].way for kind in OPTIMIZERS}
    assert found == {k: 'kernel' if k in ('adamw fused', 'sgd fused') else 'host' for k in OPTIMIZERS}


@pytest.mark.parametrize('autocast', [False, True], ids=['fp32', 'bf16'])
@pytest.mark.parametrize('clip', [None, dict(max_norm=0.05), dict(type='value', clip_value=0.01)], ids=str)
@pytest.mark.parametrize('kind', ['adamw fused', 'sgd fused', 'lars'])
def test_without_a_bad_step_the_guard_changes_no_bit(kind, clip, autocast):
    guarded, plain = (steps(kind, {}, 6, clip, 2, guard=g, autocast=autocast)[3] for g in (True, False))
    assert all(same(one, other) for one, other in zip(guarded, plain))


def test_a_bad_micro_batch_spoils_its_window_only():
    states = steps('adamw fused', {3: math.inf}, 8, accumulate=2)[3]
    assert same(states[3], states[1]), 'weights, state and statistics are those from before the window'
    assert not same(states[5], states[3]) and not same(states[1], states[7])


def test_a_loss_that_is_nan_without_a_bad_gradient_counts():
    model = Net()
    wrapper = OptimWrapper(optimizer=OPTIMIZERS['adamw fused'](model.parameters()))
    step = FiniteStep(wrapper, model)
    step.install()
    before = whole_state(model, wrapper.optimizer)
    step.begin(0)
    inputs = torch.randn(8, 4)
    wrapper.update_params(model(inputs)['loss'] + torch.tensor(math.nan))
    assert same(before, whole_state(model, wrapper.optimizer)) and step.counts.tolist() == [1, 1, 0, 1, 1]
    step.remove()
    assert wrapper.step.__func__ is OptimWrapper.step


def test_the_norm_is_that_of_all_gradients_before_clipping():
    seen = []
    for clip in (None, dict(max_norm=1e-3)):
        model, _, step, _ = steps('sgd', {}, 1, clip)
        twin = Net()
        twin(torch.randn(8, 4, generator=torch.Generator().manual_seed(1)))['loss'].backward()
        expected = torch.cat([p.grad.flatten() for p in twin.parameters()]).norm()
        torch.testing.assert_close(step.norm, expected)
        seen.append(step.norm)
    assert seen[0] == seen[1]


def test_only_all_heads_together_are_a_bad_step_where_each_is_trained_alone():
    model = Net()
    wrapper = OptimWrapper(optimizer=OPTIMIZERS['sgd fused'](model.parameters()))
    step = FiniteStep(wrapper, model, may_diverge=('last.',))
    step.install()
    model.last.weight.register_hook(lambda grad: grad * math.nan)
    step.begin(0)
    wrapper.update_params(model(torch.randn(8, 4))['loss'])
    assert step.counts[0] == 0 and model.last.weight.isnan().all() and model.first.weight.isfinite().all()
    assert step.norm.isfinite()


class FakeScaler:
    """What the guard asks of torch's, which needs a GPU: a scale, and to leave out steps by itself."""

    def __init__(self, scale):
        self.scale = torch.tensor(float(scale))

    def _get_scale_async(self):
        return self.scale


@pytest.mark.parametrize(('scale', 'counted'), [(65536, 0), (1, 1)])
def test_a_scale_that_is_too_large_is_no_fault(scale, counted):
    """fp16: an infinite gradient of a finite loss is how the scaler finds its scale, until that is down at 1."""
    model = Net()
    wrapper = OptimWrapper(optimizer=OPTIMIZERS['adamw fused'](model.parameters()))
    wrapper.loss_scaler = FakeScaler(scale)
    step = FiniteStep(wrapper, model)
    assert step.way == 'scaler'
    step.install()
    handle = model.first.weight.register_hook(lambda grad: grad * math.inf)
    step.begin(0)
    wrapper.update_params(model(torch.randn(8, 4))['loss'])
    assert step.counts.tolist()[:2] == [counted, counted]
    handle.remove()


def two_ranks(rank, folder, port, place):
    """One rank's loss or gradient is bad in the second of three steps; what each rank has afterwards is saved."""
    join(rank, port)
    model = Net()
    wrapper = OptimWrapper(optimizer=OPTIMIZERS['adamw fused'](model.parameters()))
    parallel = nn.parallel.DistributedDataParallel(model, broadcast_buffers=False)
    step = FiniteStep(wrapper, parallel)
    step.install()
    states = []
    for i in range(3):
        step.begin(i)
        loss = parallel(torch.randn(8, 4, generator=torch.Generator().manual_seed(2 * i + rank)))['loss']
        if i == 1 and rank == 1:
            loss = loss * math.nan if place == 'loss' else loss
            hook = model.last.bias.register_hook(lambda grad: grad * (math.inf if place == 'gradient' else 1))
        wrapper.update_params(loss)
        if i == 1 and rank == 1:
            hook.remove()
        states.append(whole_state(model, wrapper.optimizer))
    torch.save((states, step.counts), folder / f'{rank}.pth')
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize('place', ['loss', 'gradient'])
def test_what_is_bad_on_one_rank_is_left_out_on_both(place, tmp_path):
    with store() as port:
        spawn(two_ranks, tmp_path, port, place)
    (first, counts), (second, counts_1) = (torch.load(tmp_path / f'{rank}.pth') for rank in (0, 1))
    assert same(first[1], first[0]) and same(second[1], second[0]) and not same(first[2], first[1])
    weights = [name for name in first[2] if 'running' not in name]
    assert all(torch.equal(first[2][name], second[2][name]) for name in weights)
    own = int(place == 'loss')
    assert counts.tolist() == [0, 1, 1, 0, 3] and counts_1.tolist() == [0, 1, 1, own, 3]


# ---- whole runs


class Vectors(torch.utils.data.Dataset):
    def __init__(self, bad=()):
        self.bad = set(bad)

    def __len__(self):
        return 64

    def get_data_info(self, index):
        return dict(img_path=f'{index}.jpg')

    def __getitem__(self, index):
        value = torch.randn(4, generator=torch.Generator().manual_seed(index))
        return dict(inputs=value * math.nan if index in self.bad else value)


class Poke(finite_hook.Hook):
    """Calls a function with the runner before iterations."""

    def __init__(self, function):
        self.function = function

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self.function(runner)


def run(folder, bad=(), hook=None, poke=None, epochs=2, model=None, **options):
    """Sixteen batches of four an epoch, in order; a checkpoint after each epoch."""
    runner = Runner(
        model or Net(),
        work_dir=str(folder),
        train_dataloader=dict(
            batch_size=4, num_workers=0, dataset=Vectors(bad), sampler=dict(type='DefaultSampler', shuffle=False),
            collate_fn=dict(type='default_collate'),
        ),
        train_cfg=dict(by_epoch=True, max_epochs=epochs),
        optim_wrapper=dict(optimizer=dict(type='AdamW', lr=0.01, fused=True), clip_grad=dict(max_norm=1.0)),
        param_scheduler=dict(type='LinearLR', start_factor=0.5, by_epoch=False, end=32),
        default_hooks=dict(
            finite=hook or dict(type='mim_mm.FiniteHook'),
            runtime_info=dict(type='mim_mm.DeferredRuntimeInfoHook'),
            logger=dict(type='LoggerHook', interval=4),
            checkpoint=dict(type='mim_mm.AtomicCheckpointHook', interval=1, max_keep_ckpts=1),
        ),
        custom_hooks=[Poke(poke)] if poke else None,
        default_scope='mmengine',
        experiment_name=f'finite-{next(numbers)}',
        randomness=dict(seed=7),
        **options,
    )  # fmt: skip
    runner.train()
    return runner


def log_of(runner_or_folder):
    folder = getattr(runner_or_folder, 'work_dir', runner_or_folder)
    return '\n'.join(path.read_text() for path in sorted(Path(folder).rglob('*.log')))


def test_a_bad_image_costs_its_step_and_nothing_else(tmp_path):
    runner = run(tmp_path, bad=[9])
    assert runner.iter == 32 and not not_finite_in_file(tmp_path / 'epoch_2.pth')
    norms = runner.message_hub.log_scalars['train/grad_norm'].data[0]
    assert len(norms) == 32 and [i for i, v in enumerate(norms) if not math.isfinite(v)] == [2, 18]
    text = log_of(runner)
    assert re.search(r'1 step\(s\) left out up to iteration 3', text) and 'grad_norm' in text
    assert runner.optim_wrapper.get_lr()['lr'] == [pytest.approx(0.01)], 'the schedule goes on'


def test_after_bad_steps_in_a_row_the_run_goes_back_and_the_data_goes_on(tmp_path):
    batches = []

    def poke(runner):
        batches.append(runner.iter)
        if runner.iter == 20:
            with torch.no_grad():
                runner.model.first.weight.fill_(math.nan)
        if runner.iter == 25:
            saved = torch.load(tmp_path / 'epoch_1.pth', weights_only=True)
            for name, value in runner.model.state_dict().items():
                assert torch.equal(value, saved['state_dict'][name]), name
            state = runner.optim_wrapper.optimizer.state_dict()
            for i, entry in saved['optimizer']['state'].items():
                assert all(torch.equal(entry[key], state['state'][i][key]) for key in entry)
            assert state['param_groups'][0]['lr'] > saved['optimizer']['param_groups'][0]['lr'], 'the rate of now'

    runner = run(tmp_path, poke=poke)
    assert batches == list(range(32)) and 'epoch_1.pth again' in log_of(runner)
    assert not not_finite_in_file(tmp_path / 'epoch_2.pth')


def test_it_stops_with_a_diagnosis_that_names_iteration_images_layers_and_rank(tmp_path):
    with pytest.raises(NotFiniteError) as error:
        run(tmp_path, bad=range(40, 64), hook=dict(type='mim_mm.FiniteHook', rollback_after=2, stop_after=4))
    text = str(error.value)
    assert 'after 4 steps in a row' in text and 'first at iteration 11' in text and '40.jpg (index 40)' in text
    assert 'on rank 0' in text and 'such weights: none' in text
    report = json.loads((tmp_path / 'not_finite.json').read_text())
    assert report['first_iteration'] == 11 and report['ranks'][0]['images'] == [
        f'{i}.jpg (index {i})' for i in range(40, 44)
    ]
    assert set(report['ranks'][0]['gradient_norms']) == {
        'norm.weight',
        'norm.bias',
        'first.weight',
        'first.bias',
        'last.weight',
        'last.bias',
    }
    assert report['ranks'][0]['gradient_norms']['first.weight'] == 'nan'
    assert all(isinstance(v, float) for v in report['ranks'][0]['parameter_norms'].values())
    assert not list(tmp_path.glob('*.pth'))


def test_weights_that_are_not_finite_are_never_saved_and_end_the_run(tmp_path):
    """A weight that the loss does not see, so that no step is bad."""
    model = Net()
    model.unused = nn.Parameter(torch.zeros(2))

    def poke(runner):
        if runner.iter == 20:
            runner.model.unused.data.fill_(math.inf)

    with pytest.raises(NotFiniteError, match='ended with weights that are not finite: unused'):
        run(tmp_path, poke=poke, model=model)
    assert [path.name for path in tmp_path.glob('*.pth')] == ['epoch_1.pth'], 'nor did it make room'
    assert (tmp_path / 'last_checkpoint').read_text().endswith('epoch_1.pth')
    assert 'NOT saved' in log_of(tmp_path)


def test_a_last_step_that_is_bad_ends_the_run_with_an_error(tmp_path):
    with pytest.raises(NotFiniteError, match=r'last 1 step\(s\), from iteration 32 on'):
        run(tmp_path, bad=[63])
    assert not not_finite_in_file(tmp_path / 'epoch_2.pth')


def test_it_does_not_start_from_weights_that_are_not_finite(tmp_path):
    model = Net()
    model.first.weight.data[0, 0] = math.nan
    with pytest.raises(NotFiniteError, match='before the first step.*first.weight'):
        run(tmp_path, model=model)


def test_the_newest_finite_checkpoint_is_found_behind_bad_ones(tmp_path):
    runner = run(tmp_path, epochs=1)
    good = torch.load(tmp_path / 'epoch_1.pth', weights_only=True)
    for number, (part, key) in enumerate([('state_dict', 'first.weight'), ('optimizer', 'state')], 2):
        bad = copy.deepcopy(good)
        (bad[part][key] if part == 'state_dict' else bad[part][key][0]['exp_avg'])[0] = math.nan
        torch.save(bad, tmp_path / f'epoch_{number}.pth')
    (tmp_path / 'last_checkpoint').write_text(str(tmp_path / 'epoch_3.pth'))
    found, refused = newest_finite(tmp_path)
    assert found == tmp_path / 'epoch_1.pth' and len(refused) == 2
    assert 'optimizer.state.0.exp_avg' in refused[0] and 'first.weight' in refused[1]
    assert runner.iter == 16


def test_a_metric_that_is_nan_is_said(caplog):
    said = []
    FiniteHook().after_val_epoch(SimpleNamespace(logger=SimpleNamespace(error=said.append)), {'a': math.nan, 'b': 1.0})
    assert len(said) == 1 and 'a=nan' in said[0] and 'b' not in said[0].split(':')[1]


def test_a_spike_is_one_line(tmp_path):
    def poke(runner):
        runner.model.first.weight.grad = None
        if runner.iter == 28:
            runner.model.last.bias.data += 300

    runner = run(tmp_path, poke=poke)
    lines = [line for line in log_of(runner).splitlines() if 'spike: loss' in line]
    assert len(lines) == 1, lines


def test_spikes_are_seen_after_old_values_are_forgotten():
    said, buffer, hook = [], HistoryBuffer(), FiniteHook()
    hook.seen, hook.spiking = {}, {}
    hub = SimpleNamespace(log_scalars={'train/loss': buffer})
    for step in range(400):
        buffer.update(100.0 if step == 395 else 1.0 + 0.1 * (step % 3))
        if step % 10 == 9:
            forget(buffer, 60)
            logger = SimpleNamespace(warning=said.append)
            hook._look_for_spikes(SimpleNamespace(message_hub=hub, logger=logger, iter=step + 1))
            assert bool(said) == (step > 395)
    assert len(said) == 1 and 'spike: loss 100 up to iteration 400' in said[0]


def test_the_limit_is_robust():
    past = torch.ones(50).numpy() + torch.linspace(-0.1, 0.1, 50).numpy()
    assert spike_limit(past, 10) == pytest.approx(2 * 1.0)
    spiked = past.copy()
    spiked[:5] = 1e6
    assert spike_limit(spiked, 10) < 2.3, 'some spikes before do not hide the next'
    assert spike_limit(past[:19], 10) is None


@pytest.mark.parametrize('options', [dict(rollback_after=20), dict(rollback_after=0), dict(interval=0), dict(window=5)])
def test_wrong_settings_are_refused(options):
    with pytest.raises(ValueError, match='FiniteHook'):
        FiniteHook(**options)
