"""A resumed run has the rates of an uninterrupted run of its own settings: every iteration, every parameter group."""

import copy
import itertools
import json

import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import DefaultSampler, InfiniteSampler
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.optim import CosineAnnealingLR, LinearLR
from mmengine.registry import DATASETS, MODELS
from mmengine.runner import Runner
from tiny_run import ROOT, SHRINK, as_words
from torch.utils.data import Dataset

from mim_mm.checkpoint.atomic import latest_checkpoint
from mim_mm.engine.start import launch
from mim_mm.engine.start.resume_schedule import numbers, replay, state
from mim_mm.engine.stop import exact_resume

WARM = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=True, begin=0, end=2, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=1e-5, by_epoch=True, begin=2, convert_to_iter_based=True),
]
BY_EPOCH = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=3),
    dict(type='CosineAnnealingLR', by_epoch=True, begin=1),
    dict(type='CosineAnnealingMomentum', eta_min=0.5, by_epoch=True),
]
BY_ITERATION = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=3),
    dict(type='PolyLR', power=2.0, by_epoch=False, begin=3),
]


class Numbers(Dataset):
    def __len__(self):
        return 12

    def __getitem__(self, index):
        return torch.full((4,), float(index) / 12)


class Two(BaseModel):
    def __init__(self):
        super().__init__()
        self.low, self.high = torch.nn.Linear(4, 4), torch.nn.Linear(4, 1)

    def forward(self, inputs, mode='loss'):
        return dict(loss=self.high(self.low(torch.stack(inputs))).square().mean())

    def train_step(self, data, optim_wrapper):
        loss = self(data)['loss']
        optim_wrapper.update_params(loss)
        return dict(loss=loss.detach())


class Rates(Hook):
    """Lr, momentum and weight decay of every group, as the optimizer's step uses them."""

    images: dict = {}  # of the last run: the images of each iteration

    def __init__(self):
        self.seen = {}
        Rates.images = {}

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        Rates.images[runner.iter] = [round(12 * image[0].item()) for image in data_batch]
        groups = runner.optim_wrapper.optimizer.param_groups
        keys = ('lr', 'momentum', 'weight_decay')
        self.seen[runner.iter] = [tuple(group[key] for key in keys) for group in groups]


@pytest.fixture(autouse=True, scope='module')
def registered():
    DATASETS.register_module(name='ResumeNumbers', module=Numbers)
    MODELS.register_module(name='ResumeTwo', module=Two)
    yield
    DATASETS._module_dict.pop('ResumeNumbers')
    MODELS._module_dict.pop('ResumeTwo')


def run(
    work_dir, epochs, schedulers=WARM, until=None, lr=0.1, batch=4, iterations=False, accumulate=1, decay=0.05,
    inside=False, seed=5,
):  # fmt: skip
    """Rates by iteration; ``until``: cut off after that many epochs (iterations); goes on from what the folder has.

    ``inside``: checkpoints and ``until`` count iterations although the loop counts epochs.
    """
    count = iterations or inside
    found = latest_checkpoint(work_dir) if work_dir.exists() else None
    loop = dict(type='IterBasedTrainLoop', max_iters=epochs, val_interval=10**6)
    every = dict(type='mim_mm.AtomicCheckpointHook', interval=1, by_epoch=not count)
    runner = Runner(
        dict(type='ResumeTwo'), str(work_dir),
        train_dataloader=dict(batch_size=batch, num_workers=0, drop_last=True, dataset=dict(type='ResumeNumbers'),
                              sampler=dict(type='InfiniteSampler' if iterations else 'DefaultSampler', shuffle=True)),
        train_cfg=loop if iterations else dict(by_epoch=True, max_epochs=epochs),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=lr, momentum=0.9, weight_decay=decay),
                           accumulative_counts=accumulate,
                           paramwise_cfg=dict(custom_keys={'low': dict(lr_mult=0.5)}, bias_decay_mult=0.0)),
        param_scheduler=copy.deepcopy(schedulers), default_hooks=dict(checkpoint=every),
        custom_hooks=[dict(type=f'mim_mm.{kind}Hook') for kind in ('ResumeSchedule', 'ExactResume', 'StopOnSignal')],
        resume=bool(found), load_from=str(found) if found else None, default_scope='mim_mm',
        randomness=dict(seed=seed),
        # mmengine keeps a logger, and its file, for each name.
        experiment_name=f'{work_dir}-{epochs}-{bool(found)}'.replace('/', '_'),
    )  # fmt: skip
    rates = Rates()
    runner.register_hook(rates, 'LOWEST')

    class Cut(Hook):
        priority = 'LOWEST'

        def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
            if count and runner.iter + 1 == until:
                raise KeyboardInterrupt

        def before_train_epoch(self, runner):
            if not count and until and runner.epoch == until:
                raise KeyboardInterrupt

    runner.register_hook(Cut())
    try:
        runner.train()
    except KeyboardInterrupt:
        pass
    return rates.seen


def after(seen, first):
    return {key: value for key, value in seen.items() if key >= first}


@pytest.mark.parametrize('schedulers', [WARM, BY_EPOCH, WARM[1:], []], ids=['warm-up', 'by epoch', 'cosine', 'none'])
def test_a_longer_run_has_the_rates_of_its_length(tmp_path, schedulers):
    short = run(tmp_path / 'run', 4, schedulers if schedulers else WARM)
    assert len(short) == 12
    resumed = run(tmp_path / 'run', 8, schedulers)
    whole = run(tmp_path / 'whole', 8, schedulers)
    assert list(resumed) == list(range(12, 24))
    assert resumed == after(whole, 12)  # bit for bit
    if schedulers:
        assert short[11] != whole[11]


def test_a_shorter_run_and_one_cut_off(tmp_path):
    run(tmp_path / 'run', 8, until=3)
    assert run(tmp_path / 'run', 5) == after(run(tmp_path / 'whole', 5), 9)


@pytest.mark.parametrize('schedulers', [WARM, BY_EPOCH], ids=['warm-up', 'by epoch'])
@pytest.mark.parametrize('until', [2, 7, 9], ids=['in the warm-up', 'in the cosine', 'an epoch that did not end'])
def test_from_the_middle_of_an_epoch(tmp_path, schedulers, until):
    run(tmp_path / 'run', 8, schedulers, until=until, inside=True)
    resumed = run(tmp_path / 'run', 5, schedulers)
    assert resumed == after(run(tmp_path / 'whole', 5, schedulers), until)


def test_another_number_of_schedulers(tmp_path):
    """Four epochs are too short for the warm-up, so their run had a cosine only."""
    run(tmp_path / 'run', 4, WARM[1:])
    assert run(tmp_path / 'run', 8, WARM) == after(run(tmp_path / 'whole', 8, WARM), 12)


def test_another_rate_and_weight_decay(tmp_path):
    run(tmp_path / 'run', 6, until=3)
    assert run(tmp_path / 'run', 6, lr=0.4, decay=0.2) == after(run(tmp_path / 'whole', 6, lr=0.4, decay=0.2), 9)


def test_another_batch_from_the_end_of_an_epoch(tmp_path):
    """3 iterations an epoch, then 6: epoch 3 of this run ends at its iteration 18, not at 9."""
    run(tmp_path / 'run', 6, until=3)
    resumed = run(tmp_path / 'run', 6, batch=2, lr=0.05)
    assert list(resumed) == list(range(18, 36))
    assert resumed == after(run(tmp_path / 'whole', 6, batch=2, lr=0.05), 18)


def test_an_iteration_based_run(tmp_path):
    run(tmp_path / 'run', 6, BY_ITERATION, iterations=True)
    resumed = run(tmp_path / 'run', 10, BY_ITERATION, iterations=True)
    assert resumed == after(run(tmp_path / 'whole', 10, BY_ITERATION, iterations=True), 6) and len(resumed) == 4


def test_an_iteration_based_run_refuses_another_batch(tmp_path):
    run(tmp_path / 'run', 6, BY_ITERATION, iterations=True, until=4)
    with pytest.raises(exact_resume.ResumeError, match='iteration 4 of 4 images each, an iteration has 2.*devices = 4'):
        run(tmp_path / 'run', 6, BY_ITERATION, iterations=True, batch=2)


def test_nothing_changed_is_nothing_touched(tmp_path, monkeypatch):
    whole = run(tmp_path / 'whole', 6)
    run(tmp_path / 'run', 6, until=3)
    monkeypatch.setattr('mim_mm.engine.start.resume_schedule.replay', lambda *_: pytest.fail('nothing changed'))
    assert run(tmp_path / 'run', 6) == after(whole, 9)
    ours, theirs = (torch.load(tmp_path / name / 'epoch_6.pth', weights_only=False) for name in ('run', 'whole'))
    for part in ('param_schedulers', 'state_dict', 'optimizer'):
        assert repr(ours[part]) == repr(theirs[part]), part


@pytest.mark.parametrize(('batch', 'until', 'then'), [(2, 4, 8), (6, 6, 4), (12, 3, 1)])
def test_another_batch_in_the_middle_of_an_epoch(tmp_path, batch, until, then):
    """3 iterations of 4 images an epoch, cut off at ``until``: in images that is iteration ``then`` of this run."""
    run(tmp_path / 'run', 4, until=until, inside=True)
    first = [image for images in Rates.images.values() for image in images]
    resumed = run(tmp_path / 'run', 4, batch=batch)
    assert min(resumed) == then and resumed == after(run(tmp_path / 'whole', 4, batch=batch), then)
    run(tmp_path / 'run2', 4, until=until, inside=True)
    run(tmp_path / 'run2', 4, batch=batch)
    seen = first + [image for images in Rates.images.values() for image in images]
    for epoch in range(4):  # each image once
        assert sorted(seen[12 * epoch : 12 * epoch + 12]) == list(range(12)), epoch


def test_a_place_that_no_batch_ends_at_is_refused(tmp_path):
    run(tmp_path / 'run', 4, until=4, inside=True)
    with pytest.raises(
        exact_resume.ResumeError, match='4 images; an epoch has 2 batches now.*no checkpoint from the end'
    ):
        run(tmp_path / 'run', 4, batch=6)
    torch.save({}, tmp_path / 'run/epoch_1.pth')
    with pytest.raises(exact_resume.ResumeError, match=r'--resume .*run/epoch_1\.pth$'):
        run(tmp_path / 'run', 4, batch=6)


def test_another_seed_in_the_middle_of_an_epoch_goes_on_in_the_order_of_the_checkpoint(tmp_path):
    """mmengine takes the seed of the checkpoint; the sampler, which was built before, follows."""
    run(tmp_path / 'run', 4, until=4, inside=True)
    first = [image for images in Rates.images.values() for image in images]
    run(tmp_path / 'run', 4, seed=6)
    seen = first + [image for images in Rates.images.values() for image in images]
    for epoch in range(4):  # each image once
        assert sorted(seen[12 * epoch : 12 * epoch + 12]) == list(range(12)), epoch


def test_an_iteration_based_run_of_as_many_images(tmp_path):
    half = [dict(BY_ITERATION[0], end=6), dict(BY_ITERATION[1], begin=6)]
    run(tmp_path / 'run', 6, BY_ITERATION, iterations=True, until=4)
    first = [image for images in Rates.images.values() for image in images]
    with pytest.raises(exact_resume.ResumeError, match='max_iters=12, 6, 6, 12 for what'):
        run(tmp_path / 'run', 12, BY_ITERATION, iterations=True, batch=2)
    resumed = run(tmp_path / 'run', 12, half, iterations=True, batch=2)
    first += [image for images in Rates.images.values() for image in images]
    whole = run(tmp_path / 'whole', 12, half, iterations=True, batch=2)
    assert resumed == after(whole, 8) and len(resumed) == 4
    assert first == [image for images in Rates.images.values() for image in images]


@pytest.mark.parametrize('kind', [DefaultSampler, InfiniteSampler])
def test_what_processes_have_seen_is_the_beginning_of_one_order(kind, monkeypatch):
    """What conversion rests on: n batches on every process are the first images of one order, whatever their number."""

    def seen(processes, batch, count):
        taken = []
        for rank in range(processes):
            monkeypatch.setattr('mmengine.dataset.sampler.get_dist_info', lambda rank=rank: (rank, processes))
            taken += itertools.islice(iter(kind(Numbers(), shuffle=True, seed=3)), batch * count)
        return sorted(taken)

    assert seen(1, 6, 1) == seen(2, 3, 1) == seen(3, 1, 2) == seen(2, 1, 3) == seen(1, 2, 3)
    assert len(set(seen(1, 6, 1))) == 6 and seen(2, 3, 2) == seen(3, 2, 2) == list(range(12))


@pytest.mark.parametrize('epochs', [3, 4])  # at the end, and past it
def test_nothing_left_to_do_is_said(tmp_path, epochs):
    run(tmp_path / 'run', epochs, WARM[1:])
    assert run(tmp_path / 'run', 3, WARM[1:]) == {}
    text = ' '.join(path.read_text() for path in (tmp_path / 'run').rglob('*.log'))
    assert f'nothing left to do: the checkpoint is from after epoch {epochs}, and train_cfg.max_epochs is 3' in text


def test_a_foreign_checkpoint_that_does_not_say_where_it_is(tmp_path):
    run(tmp_path / 'run', 6, until=3)
    path = latest_checkpoint(tmp_path / 'run')
    checkpoint = torch.load(path, weights_only=False)
    del checkpoint['meta']['epoch_length'], checkpoint['meta']['schedule']
    torch.save(checkpoint, path)
    assert run(tmp_path / 'run', 8, until=4) == {i: r for i, r in run(tmp_path / 'whole', 8).items() if 9 <= i < 12}
    checkpoint['meta']['iter'] = 7
    path = tmp_path / 'other' / 'epoch_3.pth'
    path.parent.mkdir()
    torch.save(checkpoint, path)
    with pytest.raises(exact_resume.ResumeError, match='7 iterations in 3 epochs, an epoch has 3 here'):
        run(tmp_path / 'other', 6)


def test_replay_is_stepping_every_group():
    """Hundreds of groups are stepped as few; against schedulers that step them all."""

    def build():
        params = [torch.nn.Parameter(torch.zeros(1)) for _ in range(12)]
        groups = [dict(params=[p], lr=0.1 * 0.5 ** (i % 3)) for i, p in enumerate(params)]
        optimizer = torch.optim.SGD(groups, lr=0.1, momentum=0.9)
        return optimizer, [LinearLR(optimizer, start_factor=0.1, by_epoch=False, begin=0, end=7),
                           CosineAnnealingLR(optimizer, T_max=20, by_epoch=False, begin=7, end=27)]  # fmt: skip

    (optimizer, stepped), (fresh, schedulers) = build(), build()
    begin = [state(one) for one in schedulers]
    values, states = replay(schedulers, begin, [numbers(g) for g in fresh.param_groups], 13, 2, 5)
    for _ in range(13):
        optimizer.step()
        for one in stepped:
            one.step()
    assert [v['lr'] for v in values] == [group['lr'] for group in optimizer.param_groups]
    keys = ('last_step', '_global_step', '_last_value', 'base_values')
    assert [[s[k] for k in keys] for s in states] == [[vars(one)[k] for k in keys] for one in stepped]


def test_a_recipe_resumed_by_the_tool(image_folder, tmp_path, capfd):
    """``tools/train.py`` on a recipe of four epochs, then ``--resume`` with eight: the rates of eight."""
    recipe = tmp_path / 'recipe.py'
    recipe.write_text(
        f'_base_ = {str(ROOT / "configs/mae/mae_vitb_800e.py")!r}\n'
        'model = dict(backbone=dict(arch=dict(_delete_=True, embed_dims=32, num_layers=1, num_heads=2,\n'
        '    feedforward_channels=64)))\n'
    )
    options = {key: value for key, value in SHRINK.items() if key != 'model.backbone.arch'}
    options = as_words({**options, 'train_dataloader.dataset.data_prefix': '', 'default_hooks.checkpoint.interval': 4})

    def logged(name):
        logs = sorted((tmp_path / name).glob('*/vis_data/scalars.json'))
        return [json.loads(line) for log in logs for line in log.read_text().splitlines()]

    def train(name, epochs, *more):
        before = len(logged(name))
        # mmengine names folders by the second and keeps one visualizer a name: runs may take less than a second.
        launch.train_main([str(recipe), '--work-dir', str(tmp_path / name), '--data-root', str(image_folder), *more,
                           '--cfg-options', *options, f'train_cfg.max_epochs={epochs}',
                           f'experiment_name={name}_{epochs}'])  # fmt: skip
        return {row['step']: row['lr'] for row in logged(name)[before:] if 'lr' in row}

    short, whole = train('run', 4), train('whole', 8)
    resumed = train('run', 8, '--resume')
    first = max(short) + 1
    assert resumed == after(whole, first) and min(resumed) == first and short[max(short)] != whole[max(short)]
    assert Config.fromfile(next((tmp_path / 'run').glob('*.py'))).train_cfg.max_epochs == 8
    assert 'the rate goes on at' in capfd.readouterr().err + ''.join(
        path.read_text() for path in (tmp_path / 'run').rglob('*.log')
    )
