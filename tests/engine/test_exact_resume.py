"""Random numbers as a function of (seed, epoch, image) and (seed, iteration); going on inside windows and epochs."""

import itertools
import random

import numpy as np
import pytest
import torch
import toy_run
from mmengine.dataset import DefaultSampler, InfiniteSampler
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmpretrain.datasets.samplers import RepeatAugSampler
from processes import join, spawn, store
from torch.utils.data import BatchSampler, DataLoader, RandomSampler

from mim_mm.checkpoint.atomic import latest_checkpoint
from mim_mm.checkpoint.entries import models_in
from mim_mm.engine.stop import exact_resume
from mim_mm.engine.stop.exact_hook import GRADIENT, RANDOM, ExactResumeHook
from mim_mm.engine.stop.seeded_data import Passes, Place, PlacedSampler, SeededLoader
from mim_mm.seeds import mix, seed_generators


class Noise(torch.utils.data.Dataset):
    """A sample is its index and what each generator gives when it is read."""

    def __init__(self, size=10):
        self.size = size

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        if index % 3 == 0:
            random.random()  # as many draws as it likes: the next sample is not concerned
        return index, random.random(), np.random.random(), torch.rand(1).item()


def loader(workers=0, batch=3, sampler=None, **options):
    data = Noise()
    sampler = sampler or DefaultSampler(data, seed=5)
    return DataLoader(data, batch, sampler=sampler, num_workers=workers, collate_fn=list,
                      persistent_workers=workers > 0, **options)  # fmt: skip


def samples(epochs, workers=0, batch=3):
    """``{(epoch, index): what was drawn}``."""
    seeded = SeededLoader(loader(workers, batch), seed=7)
    found = {}
    for epoch in epochs:
        seeded.begin(epoch)
        for one in itertools.chain(*seeded.loader):
            found[epoch, one[0]] = one[1:]
    return found


def test_augmentation_follows_from_seed_epoch_and_image_alone():
    whole = samples((0, 1))
    assert len(set(whole.values())) == 20, 'every image another one in every epoch'
    for one, which in ((samples((0, 1), workers=2, batch=4), (0, 1)), (samples((1,), workers=1, batch=1), (1,))):
        assert one == {key: value for key, value in whole.items() if key[0] in which}
    # By hand: the generators are set to the number of (seed, epoch, index, occurrence) before the sample is read.
    seed_generators(mix(7, 1, 1, 4, 0))
    assert whole[1, 4] == (random.random(), np.random.random(), torch.rand(1).item())


def test_seeds_show_no_pattern():
    seeds = [mix(seed, 1, epoch, index) for seed in range(3) for epoch in range(20) for index in range(500)]
    assert len({seed & 0xFFFFFFFF for seed in seeds}) > 29_990  # numpy takes 32 bits of them
    bits = np.array([[seed >> bit & 1 for bit in range(64)] for seed in seeds[:4000]])
    assert abs(bits.mean(0) - 0.5).max() < 0.05


@pytest.mark.parametrize('workers', [0, 1])
@pytest.mark.parametrize('kind', ['default', 'random', 'endless'])
def test_an_epoch_goes_on_at_any_batch(kind, workers):
    def make():
        kinds = dict(default=DefaultSampler(Noise(), seed=5), random=RandomSampler(Noise()),
                     endless=InfiniteSampler(Noise(), seed=5))  # fmt: skip
        return SeededLoader(loader(workers, sampler=kinds[kind]), seed=7)

    whole = list(itertools.islice(Passes(make(), 0, 0), 11))
    for begin in (1, 9) if workers else (1, 3, 4, 9):
        torch.rand(begin)  # whatever happened before
        assert list(itertools.islice(Passes(make(), begin, 0), 11 - begin)) == whole[begin:], begin
        announced = Passes(make(), begin, begin)  # mmengine 0.10.7 calls next as often
        assert [next(announced) for _ in range(begin)] == [None] * begin and next(announced) == whole[begin]
    if kind != 'endless':
        assert sorted(one[0] for batch in whole[:4] for one in batch) == list(range(10))


def test_passes_of_an_endless_order_and_copies_of_repeated_augmentation():
    """On two ranks: every image once in a pass; the three copies of an image differ, on whatever rank they are."""
    passes, copies = [], []
    for rank in (0, 1):
        endless, repeated = InfiniteSampler(Noise(7), seed=3), RepeatAugSampler(Noise(8), num_repeats=3, seed=3)
        endless.rank, endless.world_size = rank, 2
        repeated.rank, repeated.world_size, repeated.num_samples = rank, 2, 12
        repeated.num_selected_samples = 12
        passes += [(int(p), p.epoch) for p in itertools.islice(PlacedSampler(endless, 7), 14 if rank == 0 else 14)]
        copies += [(int(p), p.copy) for p in PlacedSampler(repeated, 8)]
    assert sorted(passes) == sorted((index, epoch) for index in range(7) for epoch in range(4))
    assert sorted(copies) == sorted((index, copy) for index in range(8) for copy in range(3))
    drawn = [int(p) * 100 + p.copy for p in PlacedSampler(BatchSampler([4, 4, 4], 1, False).sampler, 8)]
    assert drawn == [400, 401, 402], 'and of a sampler that draws an image again'


def test_a_place_is_an_index():
    assert [10, 11, 12][Place(1, epoch=5)] == 11 and Place(3, 1) == 3
    seeded = SeededLoader(loader(), seed=7).loader
    assert seeded.dataset.size == 10 and len(seeded.dataset) == 10 and len(seeded) == 4
    seeded.dataset.pipeline = 'of a later stage'  # as mmdet's PipelineSwitchHook does
    assert seeded.dataset.dataset.pipeline == 'of a later stage'
    assert seeded.sampler.seed == 5 and not hasattr(seeded.dataset, '__getitems__')
    torch.manual_seed(0)
    expected = torch.rand(1).item()
    torch.manual_seed(0)
    assert seeded.dataset.dataset[1][3] == expected, 'a plain index leaves the generators alone'


# ---- through the Runner


class Dropping(BaseModel):
    """A linear layer behind dropout and BatchNorm, with a generator of its own."""

    def __init__(self):
        super().__init__()
        self.norm, self.linear = torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 4)
        torch.nn.init.eye_(self.linear.weight)
        self.own = torch.Generator().manual_seed(11)

    def forward(self, inputs, mode='loss'):
        dropped = torch.nn.functional.dropout(self.norm(inputs[:, 0]), 0.5, training=True)
        noise = torch.rand(4, generator=self.own)
        return dict(loss=(self.linear(dropped) + noise - random.random() - np.random.random()).square().mean())


class Kill(Hook):
    priority = 'LOWEST'

    def __init__(self, after):
        self.after = after

    def after_train_epoch(self, runner):
        torch.rand(3), random.random()  # what a hook does that is not done again after a kill
        if runner.epoch + 1 == self.after:
            raise KeyboardInterrupt


def go(work_dir, kill=0, accumulate=2, hooks=True, **options):
    loop = dict(by_epoch=True, max_epochs=4)
    hooks = [*([ExactResumeHook()] if hooks else []), Kill(kill)]
    torch.manual_seed(len(list(work_dir.glob('*.pth'))) if work_dir.exists() else 99)  # a new process has other numbers
    try:
        return toy_run.run(work_dir, Dropping(), loop, hooks, accumulate, **options)
    except KeyboardInterrupt:
        return None


def last(work_dir):
    content = torch.load(latest_checkpoint(work_dir), weights_only=True)
    return content, [*content['state_dict'].values()]


@pytest.mark.parametrize('accumulate', [1, 2, 5])  # epochs of three iterations: windows stay open at their ends
def test_killed_after_each_epoch_equals_not_killed(tmp_path, accumulate):
    go(tmp_path / 'whole', accumulate=accumulate)
    whole, expected = last(tmp_path / 'whole')
    assert whole['meta']['iter'] == 12
    for kill in (1, 2, 3):
        work = tmp_path / f'cut-{kill}'
        go(work, kill, accumulate)
        content, _ = last(work)
        (state,) = content[RANDOM]
        assert set(state) == {'torch', 'cuda', 'numpy', 'python', 'modules', 'buffers'} and list(state['modules']) == [
            '.own'
        ]
        assert (GRADIENT in content) == bool(kill * 3 % accumulate)
        assert list(models_in(content)) == ['state_dict'], 'no gradient is taken for weights'
        go(work, 0, accumulate, resume=True, load_from=str(latest_checkpoint(work)))
        assert all(torch.equal(a, b) for a, b in zip(last(work)[1], expected, strict=True)), kill


def test_a_checkpoint_of_an_earlier_version_goes_on_and_says_what_it_lacks(tmp_path, caplog):
    go(tmp_path / 'old', 2, hooks=False)
    assert RANDOM not in last(tmp_path / 'old')[0]
    path = str(latest_checkpoint(tmp_path / 'old'))
    runner = go(tmp_path / 'old', resume=True, load_from=path)
    text = next((tmp_path / 'old').glob(f'*/{runner.timestamp}.log')).read_text()
    assert runner.iter == 12 and 'the checkpoint holds no random state' in text


def test_a_run_without_a_seed_goes_on_with_the_order_of_its_first_seed(tmp_path):
    class Seen(Hook):
        def before_train_iter(self, runner, batch_idx, data_batch=None):
            seen.append((runner.iter, data_batch['inputs'].sum().item()))

    seen = []
    order = dict(type='DefaultSampler', shuffle=True)
    for kill, resume in ((2, False), (0, True)):
        runner = toy_run.Runner(
            Dropping(), str(tmp_path), dict(
                batch_size=2, num_workers=0, dataset=toy_run.Images(), sampler=order,
                collate_fn=dict(type='default_collate')),
            train_cfg=dict(by_epoch=True, max_epochs=4), optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.01)),
            default_hooks=dict(checkpoint=dict(type='mim_mm.AtomicCheckpointHook', interval=1), logger=None,
                               runtime_info=None),
            custom_hooks=[ExactResumeHook(), Seen(), Kill(kill)], experiment_name=f'seedless-{resume}',
            default_scope='mmengine', resume=resume, load_from=str(tmp_path / 'epoch_2.pth') if resume else None,
        )  # fmt: skip
        try:
            runner.train()
        except KeyboardInterrupt:
            first = runner.seed
    sampler = DefaultSampler(toy_run.Images(), seed=first)
    expected = []
    for epoch in range(4):
        sampler.set_epoch(epoch)
        order = list(sampler)
        expected += [toy_run.Images()[a]['inputs'].add(toy_run.Images()[b]['inputs']).sum().item()
                     for a, b in zip(order[::2], order[1::2], strict=True)]  # fmt: skip
    assert [value for _, value in seen] == pytest.approx(expected, abs=1e-4)


def test_gradients_of_another_model_are_refused():
    model = torch.nn.Linear(2, 3)
    with pytest.raises(exact_resume.ResumeError, match=r'gradient of weight \(3, 4\), the model has \(3, 2\)'):
        exact_resume.set_gradient(model, dict(weight=torch.ones(3, 4)))
    with pytest.raises(exact_resume.ResumeError, match='no such parameter'):
        exact_resume.set_gradient(model, dict(scale=torch.ones(3)))


def test_random_states_come_back():
    class Module(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.own = torch.Generator().manual_seed(1)

    model = torch.nn.Sequential(Module())

    def draw():
        own = torch.rand(1, generator=model[0].own).item()
        return own, torch.rand(2).tolist(), np.random.randn(2).tolist(), random.gauss(0, 1), random.random()

    random.gauss(0, 1), np.random.randn()  # both keep a second number for later
    state = exact_resume.random_state(model)
    first = draw()
    exact_resume.set_random_state(state, model)
    assert draw() == first


def _two_ranks_with_statistics_of_their_own(rank, port, folder):
    join(rank, port)
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
    model.register_buffer('alike', torch.ones(3))
    model.register_buffer('number', torch.tensor(1.5))
    model.register_buffer('coarse', torch.ones(2, 2, dtype=torch.bfloat16).T)
    model.register_buffer('nothing', torch.ones(0))
    model[1].running_mean.fill_(rank + 0.5)
    found = exact_resume.own_buffers(model)
    model[1].running_mean.zero_()  # as another rank's checkpoint would have it
    exact_resume.set_own_buffers(model, found)
    torch.save((sorted(found), model[1].running_mean), f'{folder}/{rank}.pth')
    torch.distributed.destroy_process_group()


@pytest.mark.process
def test_statistics_of_a_rank_are_its_own(tmp_path):
    """Found by kill 22 of tests/faults/kills.py: BatchNorm of a probe is synchronised at an epoch's end alone."""
    with store() as port:
        spawn(_two_ranks_with_statistics_of_their_own, port, str(tmp_path))
    for rank in (0, 1):
        names, mean = torch.load(tmp_path / f'{rank}.pth')
        assert names == ['1.running_mean'] and mean.tolist() == [rank + 0.5] * 2
    assert exact_resume.own_buffers(torch.nn.BatchNorm1d(2)) == {}
