"""progress.json as a real mmengine Runner writes it."""

import json
import math
import os
import warnings

import pytest
import torch
from mmengine.evaluator import BaseMetric
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch.utils.data import Dataset

from mim_mm.engine.hooks import progress
from mim_mm.engine.hooks.progress import ProgressHook, read_progress


class Numbers(Dataset):
    METAINFO = {}

    def __len__(self):
        return 8

    def __getitem__(self, i):
        return torch.full((2,), float(i))


class Line(BaseModel):
    """loss = mean of a linear map; `bad_at` makes one iteration's loss NaN."""

    def __init__(self, bad_at=None):
        super().__init__()
        self.linear = torch.nn.Linear(2, 1)
        self.calls, self.bad_at = 0, bad_at

    def forward(self, inputs, data_samples=None, mode='tensor'):
        out = self.linear(torch.stack(list(inputs)) if isinstance(inputs, (list, tuple)) else inputs)
        if mode != 'loss':
            return [out]
        self.calls += 1
        return dict(loss=out.mean() * (math.nan if self.calls == self.bad_at else 0.0) + 2.0, extra=out.sum() * 0 + 7)

    def train_step(self, data, optim_wrapper):
        losses, logged = self.parse_losses(self(data, mode='loss'))
        optim_wrapper.update_params(losses)
        return logged

    def val_step(self, data):
        return self(data, mode='predict')

    test_step = val_step


class Count(BaseMetric):
    def process(self, data_batch, data_samples):
        self.results.append(1)

    def compute_metrics(self, results):
        return dict(batches=torch.tensor(float(len(results))), nan=float('nan'), classwise=[1, 2], note='x')


def runner(work_dir, train_cfg, model=None, hook=None, val=True, **more):
    loader = dict(batch_size=2, num_workers=0, dataset=Numbers(), sampler=dict(type='DefaultSampler', shuffle=False))
    if train_cfg.get('by_epoch') is False:
        loader['sampler'] = dict(type='InfiniteSampler')
    plain = dict(batch_size=2, num_workers=0, dataset=Numbers(), sampler=dict(type='DefaultSampler', shuffle=False))
    measured = dict(val_dataloader=plain, val_cfg={}, val_evaluator=[Count()]) if val else {}
    by_epoch = train_cfg.get('by_epoch', True)
    return Runner(
        model=model or Line(),
        work_dir=str(work_dir),
        train_dataloader=loader,
        train_cfg=train_cfg,
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        default_hooks=dict(
            logger=dict(type='LoggerHook', interval=2),
            checkpoint=dict(type='CheckpointHook', interval=1 if by_epoch else 3, by_epoch=by_epoch),
        ),
        log_processor=dict(by_epoch=by_epoch),
        custom_hooks=[hook or dict(type='mim_mm.ProgressHook', min_seconds=0.0)],
        experiment_name=f'{work_dir}{os.urandom(4).hex()}',
        log_level='ERROR',
        **measured,
        **more,
    )


def written(monkeypatch):
    """Everything that is written from here on."""
    states, write = [], progress.write_progress

    def keep(work_dir, state):
        states.append(json.loads(json.dumps(state)))
        write(work_dir, state)

    monkeypatch.setattr(progress, 'write_progress', keep)
    return states


def test_epochs(tmp_path, monkeypatch):
    states = written(monkeypatch)
    runner(tmp_path, dict(by_epoch=True, max_epochs=3, val_interval=1)).train()
    end = read_progress(tmp_path)
    assert end == states[-1]
    assert (end['epoch'], end['max_epochs'], end['iter'], end['max_iters']) == (3, 3, 12, 12)
    assert end['finished'] is True and end['eta_s'] == 0.0 and end['checkpoint'] == 'epoch_3.pth'
    assert end['loss'] == 2.0 and end['train']['extra'] == 7.0 and end['train']['lr'] == pytest.approx(0.1)
    assert end['metrics'] == {'batches': 4.0, 'nan': None, 'note': 'x'}, 'lists are left out, NaN is null'
    # After each iteration (min_seconds=0), whatever the logging interval, after each validation, at the start and end.
    assert [state['iter'] for state in states] == [0, 1, 2, 3, 4, 4, 5, 6, 7, 8, 8, 9, 10, 11, 12, 12, 12]
    assert [state['finished'] for state in states] == [False] * 16 + [True]
    assert states[1]['epoch'] == 0 and states[5]['epoch'] == 1 and states[1]['loss'] == 2.0
    assert states[5]['metrics'] and not states[4]['metrics'] and states[5]['checkpoint'] == 'epoch_1.pth'


def test_eta_is_the_mean_iteration_times_those_to_go(tmp_path, monkeypatch):
    now = [100.0]

    class Slow(Line):
        def train_step(self, data, optim_wrapper):
            now[0] += 50.0 if self.calls == 0 else 3.0  # the first iteration compiles
            return super().train_step(data, optim_wrapper)

    monkeypatch.setattr(progress.time, 'monotonic', lambda: now[0])
    states = written(monkeypatch)
    runner(tmp_path, dict(by_epoch=True, max_epochs=2), model=Slow(), val=False).train()
    by_iteration = {state['iter']: state for state in states if not state['finished']}
    assert by_iteration[0]['eta_s'] is None
    assert by_iteration[2]['eta_s'] == 3.0 * 6 and by_iteration[6]['eta_s'] == 3.0 * 2
    assert by_iteration[6]['elapsed_s'] == 50 + 5 * 3


def test_it_follows_time_and_not_the_logging_interval(tmp_path, monkeypatch):
    now = [100.0]

    class Slow(Line):
        def train_step(self, data, optim_wrapper):
            now[0] += 1.5
            return super().train_step(data, optim_wrapper)

    monkeypatch.setattr(progress.time, 'monotonic', lambda: now[0])
    states = written(monkeypatch)
    # Two seconds at least are between two writes: every second of these iterations, of which five are logged at a time.
    hooks = dict(hook=dict(type='mim_mm.ProgressHook'), val=False)
    run = runner(tmp_path, dict(by_epoch=True, max_epochs=2), model=Slow(), **hooks)
    next(h for h in run.hooks if type(h).__name__ == 'LoggerHook').interval = 5
    run.train()
    assert [state['iter'] for state in states] == [0, 2, 4, 6, 8, 8]


def test_iterations(tmp_path):
    runner(tmp_path, dict(by_epoch=False, max_iters=7, val_interval=7)).train()
    end = read_progress(tmp_path)
    assert (end['max_epochs'], end['iter'], end['max_iters']) == (None, 7, 7)
    assert end['finished'] and end['checkpoint'] == 'iter_7.pth' and end['metrics']['batches'] == 4.0


def test_resuming_keeps_metrics_and_time(tmp_path, monkeypatch):
    runner(tmp_path, dict(by_epoch=True, max_epochs=2, val_interval=1)).train()
    before = dict(read_progress(tmp_path), elapsed_s=1000.0)
    (tmp_path / 'progress.json').write_text(json.dumps(before))
    states = written(monkeypatch)
    path = str(tmp_path / 'epoch_2.pth')
    runner(tmp_path, dict(by_epoch=True, max_epochs=3, val_interval=5), resume=True, load_from=path).train()
    assert states[0]['iter'] == 8 and states[0]['metrics'] == before['metrics'] and not states[0]['finished']
    assert states[-1]['elapsed_s'] >= 1000.0 and states[-1]['iter'] == 12 and states[-1]['finished']


def test_a_full_disk_is_said_once_and_training_goes_on(tmp_path, monkeypatch):
    def full(work_dir, state):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(progress, 'write_progress', full)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        r = runner(tmp_path, dict(by_epoch=True, max_epochs=2, val_interval=1))
        r.train()
    assert r.iter == 8
    assert len([w for w in caught if 'No space left' in str(w.message)]) == 1


@pytest.mark.parametrize('error', [AttributeError('getdevice_name'), RuntimeError('CUDA'), KeyError('x'), TypeError()])
@pytest.mark.parametrize('broken', ['device_name', 'write_progress', '_jsonable', 'read_progress'])
def test_nothing_that_fails_in_it_ends_a_training(broken, error, tmp_path, monkeypatch):
    def fail(*args):
        raise error

    monkeypatch.setattr(progress, broken, fail)
    r = runner(tmp_path, dict(by_epoch=True, max_epochs=2, val_interval=1))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        r.train()
    assert r.iter == 8
    told = [str(w.message) for w in caught if 'training goes on' in str(w.message)]
    if broken == 'read_progress':  # of resumed runs only
        hook = next(hook for hook in r.hooks if isinstance(hook, ProgressHook))
        with pytest.warns(UserWarning, match='before_train failed.*training goes on'):
            hook.before_train(r)
    else:
        assert len(told) == 1 and type(error).__name__ in told[0], told


def test_on_cuda_the_device_is_named(monkeypatch):
    monkeypatch.setattr(progress, 'get_device', lambda: 'cuda')
    monkeypatch.setattr(torch.cuda, 'get_device_name', lambda device=None: 'NVIDIA H100')
    assert progress.device_name() == 'NVIDIA H100'


def test_a_loss_that_is_not_a_number_is_null(tmp_path, monkeypatch):
    states = written(monkeypatch)
    runner(tmp_path, dict(by_epoch=True, max_epochs=1), model=Line(bad_at=2), val=False).train()
    assert next(state for state in states if state['iter'] == 2)['loss'] is None


def test_testing_alone(tmp_path):
    loader = dict(batch_size=2, num_workers=0, dataset=Numbers(), sampler=dict(type='DefaultSampler', shuffle=False))
    Runner(
        model=Line(), work_dir=str(tmp_path), test_dataloader=loader, test_cfg={}, test_evaluator=[Count()],
        custom_hooks=[dict(type='mim_mm.ProgressHook')], experiment_name=f'test{os.urandom(4).hex()}',
    ).test()  # fmt: skip
    end = read_progress(tmp_path)
    assert end['metrics']['batches'] == 4.0 and end['iter'] == 0 and end['max_iters'] is None


def test_only_the_first_rank_writes(tmp_path, monkeypatch):
    monkeypatch.setattr(progress, 'is_main_process', lambda: False)
    runner(tmp_path, dict(by_epoch=True, max_epochs=1), val=False).train()
    assert not (tmp_path / 'progress.json').exists()


def test_damaged_file_reads_as_nothing(tmp_path):
    (tmp_path / 'progress.json').write_text('{"iter": 3')
    assert read_progress(tmp_path) == {}
    assert read_progress(tmp_path / 'nowhere') == {}


def test_interval_is_checked():
    with pytest.raises(ValueError, match='interval=0'):
        ProgressHook(interval=0)
