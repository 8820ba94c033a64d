"""How long a run waits for data: the share by hand, in the log and in progress.json."""

import json
import logging
import re
import types

import pytest
import torch
from mmengine.dataset import default_collate
from mmengine.logging import MessageHub
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch.utils.data import Dataset

from mim_mm.engine.hooks import data_wait_hook
from mim_mm.engine.hooks.data_wait_hook import DataWaitHook
from mim_mm.engine.hooks.progress import ProgressHook


@pytest.mark.parametrize('hint', [10.0, 50.0])
def test_the_share_by_hand(monkeypatch, caplog, hint):
    """Three iterations that waited 1, 0.5 and 0.5 s in an epoch of 8 s: 25 %; the next epoch starts anew."""
    clock = [100.0]
    monkeypatch.setattr(data_wait_hook.time, 'perf_counter', lambda: clock[0])
    hub = MessageHub(f'data-wait-{hint}')
    logger = logging.getLogger(f'data-wait-{hint}')
    loader = types.SimpleNamespace(num_workers=3)
    runner = types.SimpleNamespace(message_hub=hub, logger=logger, epoch=4, train_dataloader=loader)
    hook = DataWaitHook(hint_above=hint)
    for waits, seconds, percent in (((1.0, 0.5, 0.5), 8.0, 25.0), ((0.0, 0.0, 1.0), 10.0, 10.0)):
        hook.before_train_epoch(runner)
        for batch, wait in enumerate(waits):
            hub.update_scalar('train/data_time', wait)
            hook.before_train_iter(runner, batch)
        clock[0] += seconds
        with caplog.at_level(logging.INFO):
            hook.after_train_epoch(runner)
        assert hub.get_scalar('train/data_wait').current() == percent
    assert 'Epoch 5: waited on data 25.0 % (2.0 of 8.0 s)' in caplog.messages[0]
    assert ('num_workers is 3' in caplog.messages[0]) == (hint < 25)
    assert 'num_workers' not in caplog.messages[1]


def test_without_a_timer_nothing_is_said(caplog):
    runner = types.SimpleNamespace(message_hub=MessageHub('no-timer'), logger=logging.getLogger('no-timer'), epoch=0)
    hook = DataWaitHook()
    hook.before_train_epoch(runner)
    hook.before_train_iter(runner, 0)
    hook.after_train_epoch(runner)
    assert not caplog.messages and 'train/data_wait' not in runner.message_hub.log_scalars
    with pytest.raises(ValueError, match='percentage'):
        DataWaitHook(101)


class Images(Dataset):
    def __len__(self):
        return 6

    def __getitem__(self, index):
        return dict(x=torch.ones(3))


class Linear(BaseModel):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(3, 1)

    def forward(self, x, mode='tensor'):
        return dict(loss=self.layer(x).square().mean())


def test_a_run_writes_it(tmp_path):
    runner = Runner(
        Linear(),
        str(tmp_path),
        train_dataloader=dict(
            batch_size=2, num_workers=0, dataset=Images(), sampler=dict(type='DefaultSampler'),
            collate_fn=default_collate,
        ),
        train_cfg=dict(by_epoch=True, max_epochs=2),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        default_hooks=dict(
            data_wait=dict(type='mim_mm.DataWaitHook'), checkpoint=None, logger=dict(type='LoggerHook', interval=1)
        ),
        custom_hooks=[ProgressHook(interval=1, min_seconds=0)],
        experiment_name='data-wait',
    )  # fmt: skip
    order = [type(hook).__name__ for hook in runner.hooks]
    assert order.index('IterTimerHook') < order.index('DataWaitHook') < order.index('LoggerHook')
    runner.train()
    progress = json.loads((tmp_path / 'progress.json').read_text())
    assert 0 <= progress['train']['data_wait'] <= 100
    log = next(tmp_path.rglob('*.log')).read_text()
    assert len(re.findall(r'Epoch [12]: waited on data \d+\.\d % \(', log)) == 2
