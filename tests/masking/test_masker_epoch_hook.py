"""The hook in real training loops, epoch-based and iteration-based, fresh and resumed."""

import pytest
import torch
from mmengine.model import BaseModel
from mmengine.runner import Runner

from mim_mm.engine.hooks.masker_epoch_hook import MaskerEpochHook
from mim_mm.masking import RandomMasking, SalienceMasking


class Recording(SalienceMasking):
    """Writes down the epoch of every mask it makes."""

    def __init__(self):
        super().__init__(random_epochs=2)
        self.seen = []

    def __call__(self, tokens, generator=None):
        self.seen.append((self.epoch, self.warming_up))
        return super().__call__(tokens, generator)


class Model(BaseModel):
    def __init__(self, masker):
        super().__init__()
        self.layer = torch.nn.Linear(4, 4)
        self.masker = masker

    def forward(self, inputs, mode='tensor'):
        plan = self.masker(inputs)
        return dict(loss=(self.layer(inputs) * plan.mask[:, 0, :, None]).square().mean())


class Images(torch.utils.data.Dataset):
    def __len__(self):
        return 6

    def __getitem__(self, index):
        return dict(inputs=torch.randn(4, 4))


def run(work_dir, masker, loop, **options):
    runner = Runner(
        Model(masker),
        work_dir=str(work_dir),
        train_dataloader=dict(
            batch_size=2, num_workers=0, dataset=Images(), sampler=dict(type='DefaultSampler', shuffle=False),
            collate_fn=dict(type='default_collate'),
        ),
        train_cfg=loop,
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.01)),
        default_hooks=dict(
            checkpoint=dict(type='mim_mm.AtomicCheckpointHook', interval=1), logger=None, runtime_info=None
        ),
        custom_hooks=[MaskerEpochHook()],
        default_scope='mmengine',
        experiment_name=f'{work_dir.name}-{id(masker)}',
        **options,
    )  # fmt: skip
    runner.train()
    return runner


def test_the_masker_knows_the_epoch_also_after_a_resume(tmp_path):
    masker = Recording()
    run(tmp_path / 'a', masker, dict(by_epoch=True, max_epochs=2))
    assert masker.seen == [(0, True)] * 3 + [(1, True)] * 3
    resumed = Recording()
    run(tmp_path / 'a', resumed, dict(by_epoch=True, max_epochs=4), resume=True)
    assert resumed.seen == [(2, False)] * 3 + [(3, False)] * 3


def test_iterations_count_passes_over_the_data(tmp_path):
    masker = Recording()
    run(tmp_path / 'b', masker, dict(by_epoch=False, max_iters=8))
    assert [epoch for epoch, _ in masker.seen] == [0] * 3 + [1] * 3 + [2] * 2


def test_maskers_without_epochs_are_left_alone(tmp_path):
    masker = RandomMasking()
    runner = run(tmp_path / 'c', masker, dict(by_epoch=True, max_epochs=1))
    assert not hasattr(masker, 'epoch') and runner.epoch == 1


def test_before_training_it_tells_the_epoch_of_the_checkpoint(tmp_path):
    masker = Recording()
    runner = run(tmp_path / 'd', masker, dict(by_epoch=True, max_epochs=1))
    masker.epoch = None
    MaskerEpochHook().before_train(runner)
    assert masker.epoch == 1


def test_without_the_hook_a_warm_up_stops_the_run(tmp_path):
    with pytest.raises(RuntimeError, match='MaskerEpochHook'):
        Model(Recording())(torch.randn(2, 4, 4))
