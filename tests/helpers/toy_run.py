"""Runs of mmengine's Runner on a handful of fixed vectors, for pretraining models of a few weights."""

import itertools

import pytest
import torch
from mmengine.runner import Runner
from tiny_run import Killed, StopHook

from mim_mm.engine.hooks.clock_hook import ClockHook

numbers = itertools.count()


class Images(torch.utils.data.Dataset):
    def __len__(self):
        return 6

    def __getitem__(self, index):
        return dict(inputs=torch.randn(4, 4, generator=torch.Generator().manual_seed(index)))


def run(work_dir, model, loop, hooks=None, accumulate=1, **options):
    """Three batches of two an epoch; a checkpoint after each."""
    runner = Runner(
        model,
        work_dir=str(work_dir),
        train_dataloader=dict(
            batch_size=2, num_workers=0, dataset=Images(), sampler=dict(type='DefaultSampler', shuffle=False),
            collate_fn=dict(type='default_collate'),
        ),
        train_cfg=loop,
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.01), accumulative_counts=accumulate),
        default_hooks=dict(
            checkpoint=dict(type='mim_mm.AtomicCheckpointHook', interval=1), logger=None, runtime_info=None
        ),
        custom_hooks=[ClockHook()] if hooks is None else hooks,
        default_scope='mmengine',
        experiment_name=f'{work_dir.name}-{next(numbers)}',
        randomness=dict(seed=7),
        **options,
    )  # fmt: skip
    runner.train()
    return runner


def resumed_bit_for_bit(folder, build):
    """Four epochs at a stretch and the same stopped after the second checkpoint and resumed end alike; both ends.

    Args:
        build: the model, from the same seed each time.
    """

    def started():
        torch.manual_seed(0)
        return build()

    whole, first, second = (started() for _ in range(3))
    loop = dict(by_epoch=True, max_epochs=4)
    run(folder / 'whole', whole, loop, accumulate=2)
    stop = StopHook(2)
    stop.priority = 'LOWEST'  # after the checkpoint
    with pytest.raises(Killed):
        run(folder / 'cut', first, loop, hooks=[ClockHook(), stop], accumulate=2)
    run(folder / 'cut', second, loop, resume=True, accumulate=2)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name
    return whole, second
