"""Learning rates iteration by iteration, against the releases' functions restated plainly."""

import bisect
import math
import re

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper
from mmengine.registry import MODELS
from mmengine.registry import PARAM_SCHEDULERS as ROOT
from mmengine.runner import Runner
from recipe_table import CONFIGS, FOLDERS
from torch import nn

from mim_mm.registry import PARAM_SCHEDULERS

EPOCHS, LENGTH, WARM, PEAK, FLOOR = 7, 12, 2, 0.8, 0.001
SCALES = (1.0, 0.25)  # of two layers


def mae(accumulated, scale, warm=WARM, floor=FLOOR, epochs=EPOCHS, length=LENGTH):
    """``adjust_learning_rate`` of MAE as its engine calls it: the rate of each iteration."""
    rates, lr = [], None
    for epoch in range(epochs):
        for data_iter_step in range(length):
            if data_iter_step % accumulated == 0:
                e = data_iter_step / length + epoch
                if e < warm:
                    lr = PEAK * e / warm
                else:
                    lr = floor + (PEAK - floor) * 0.5 * (1.0 + math.cos(math.pi * (e - warm) / (epochs - warm)))
            rates.append(lr * scale)
    return rates


def beit(accumulated, scale):
    """``cosine_scheduler`` of DINO, BEiT, CAE and iBOT: a table of optimizer steps."""
    steps = LENGTH // accumulated
    warmup = np.linspace(0, PEAK, WARM * steps)
    count = EPOCHS * steps - WARM * steps
    rest = [FLOOR + 0.5 * (PEAK - FLOOR) * (1 + math.cos(math.pi * i / count)) for i in range(count)]
    table = [*warmup, *rest]
    return [table[epoch * steps + it // accumulated] * scale for epoch in range(EPOCHS) for it in range(LENGTH)]


START = PEAK / 100


def timm_cosine(t, scale, warm, total):
    if t < warm:
        return START + t * (PEAK * scale - START) / warm
    return FLOOR + 0.5 * (PEAK * scale - FLOOR) * (1 + math.cos(math.pi * t / total))


def timm_steps(t, scale, warm, milestones):
    if t < warm:
        return START + t * (PEAK * scale - START) / warm
    return PEAK * scale * 0.1 ** bisect.bisect_right(milestones, t)


def simmim(accumulated, scale, curve):
    """SimMIM's loop: ``step_update(epoch * num_steps + idx)`` after each optimizer step; the first rate is START."""
    rates, lr = [], START
    for epoch in range(EPOCHS):
        for idx in range(LENGTH):
            rates.append(lr)
            if (idx + 1) % accumulated == 0:
                lr = curve(epoch * LENGTH + idx, scale)
    return rates


def schedulers_for(configs, accumulated):
    groups = [dict(params=[nn.Parameter(torch.zeros(1))], lr=PEAK * scale) for scale in SCALES]
    wrapper = OptimWrapper(torch.optim.SGD(groups, lr=PEAK), accumulative_counts=accumulated)
    options = dict(optimizer=wrapper, epoch_length=LENGTH)
    return wrapper, [PARAM_SCHEDULERS.build(dict(dict(end=EPOCHS), **c), default_args=options) for c in configs]


def rates_of(configs, accumulated):
    wrapper, schedulers = schedulers_for(configs, accumulated)
    rates = []
    for _ in range(EPOCHS * LENGTH):
        rates.append([group['lr'] for group in wrapper.param_groups])
        for scheduler in schedulers:
            scheduler.step()
    return [list(column) for column in zip(*rates)]


def pair(last, **options):
    options |= dict(convert_to_iter_based=True)
    return [
        dict(type='WarmupLR', end=WARM, **options, **({'start_factor': 0.01} if options.get('like') == 'timm' else {})),
        dict(last, begin=WARM, **options),
    ]


COSINE = dict(type='HalfCosineLR', eta_min_ratio=FLOOR / PEAK)


@pytest.mark.parametrize('accumulated', [1, 3, 4])
def test_mae(accumulated):
    for scale, found in zip(SCALES, rates_of(pair(COSINE), accumulated)):
        assert found == pytest.approx(mae(accumulated, scale), rel=1e-12, abs=1e-15)


def test_the_peak_is_where_the_warm_up_ends_and_a_window_across_its_end_keeps_its_first_rate():
    found = rates_of(pair(COSINE), 1)[0]
    assert found[0] == 0 and found.index(max(found)) == WARM * LENGTH and max(found) == PEAK
    across = rates_of(pair(COSINE), 5)[0]  # iterations 20 to 24 are one step, the warm-up ends at 24
    assert across[20:25] == pytest.approx([PEAK * 20 / 24] * 5)
    assert across[25] == pytest.approx(found[25])


@pytest.mark.parametrize('accumulated', [1, 3, 4])
def test_beit(accumulated):
    for scale, found in zip(SCALES, rates_of(pair(COSINE, like='beit'), accumulated)):
        assert found == pytest.approx(beit(accumulated, scale), rel=1e-12, abs=1e-15)


@pytest.mark.parametrize('accumulated', [1, 3])
def test_timm(accumulated):
    warm, total = WARM * LENGTH, EPOCHS * LENGTH
    for scale, found in zip(SCALES, rates_of(pair(COSINE, like='timm'), accumulated)):
        wanted = simmim(accumulated, scale, lambda t, s: timm_cosine(t, s, warm, total))
        assert found == pytest.approx(wanted, rel=1e-12)
    for scale, found in zip(SCALES, rates_of(pair(dict(type='StepsLR', milestones=[5]), like='timm'), accumulated)):
        wanted = simmim(accumulated, scale, lambda t, s: timm_steps(t, s, warm, [5 * LENGTH]))
        assert found == pytest.approx(wanted, rel=1e-12)


def test_timm_by_epoch_is_deit():
    """DeiT steps the scheduler with the number of the epoch that has just ended."""
    configs = pair(dict(COSINE), like='timm')
    for config in configs:
        config.pop('convert_to_iter_based')
    wrapper, schedulers = schedulers_for(configs, accumulated=3)
    wanted, lr = [], START
    for epoch in range(EPOCHS):
        wanted.append(lr)
        assert wrapper.param_groups[0]['lr'] == pytest.approx(lr)
        lr = timm_cosine(epoch, 1.0, WARM, EPOCHS)
        for scheduler in schedulers:
            scheduler.step()
    assert wanted[:2] == [START, START]


@pytest.mark.parametrize('accumulated', [1, 5])
def test_mmengines_schedulers_go_on_from_the_whole_rate(accumulated):
    """They multiply what they find: with the last rate of the warm-up itself they would stay below for ever."""
    steps = dict(type='MultiStepLR', milestones=[40, 60], by_epoch=False)
    wrapper, warm = schedulers_for(pair(COSINE)[:1], accumulated)
    schedulers = [*warm, PARAM_SCHEDULERS.build(steps, default_args=dict(optimizer=wrapper))]
    found = []
    for _ in range(EPOCHS * LENGTH):
        found.append(wrapper.param_groups[1]['lr'])
        for scheduler in schedulers:
            scheduler.step()
    end = WARM * LENGTH if accumulated == 1 else 25  # 20 to 24 are one optimizer step
    assert found[end - 1] < found[end] == PEAK * SCALES[1]
    assert found[end:40] == [PEAK * SCALES[1]] * (40 - end)
    assert found[40:60] == pytest.approx([0.1 * PEAK * SCALES[1]] * 20) and found[60] == pytest.approx(found[40] / 10)


def test_the_state_is_plain_and_the_optimizer_says_what_it_accumulates():
    _, old = schedulers_for(pair(COSINE), 2)
    _, new = schedulers_for(pair(COSINE), 4)
    for one in old:
        for _ in range(30):
            one.step()
    for one, before in zip(new, old):
        assert all(isinstance(v, (int, float, str, list, type(None))) for v in before.state_dict().values())
        assert before.state_dict()['accumulated'] == 2
        one.load_state_dict(before.state_dict())
        assert one.accumulated == 4 and one._global_step == 30
        one.step()
    assert new[1].optimizer.param_groups[0]['lr'] == pytest.approx(mae(1, 1.0)[28])  # of 28 to 31


def test_unknown_ways_are_refused():
    with pytest.raises(ValueError, match="like is 'moco': use one of mae, beit, timm, msn"):
        schedulers_for([dict(type='WarmupLR', like='moco')], 1)
    with pytest.raises(ValueError, match='give one of them'):
        schedulers_for([dict(type='HalfCosineLR', eta_min=1.0, eta_min_ratio=1.0)], 1)


class Little(BaseModel):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, inputs, data_samples=None, mode='loss'):
        return dict(loss=(self.weight - 1).square().sum())


@pytest.fixture(autouse=True, scope='module')
def registered():
    MODELS.register_module(name='LittleOfRates', module=Little)
    yield
    MODELS._module_dict.pop('LittleOfRates')


class Notes(Hook):
    """The rate at each update, and of each iteration."""

    def __init__(self, stop=None):
        self.rates, self.updates, self.stop = [], [], stop

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self.rates.append(runner.optim_wrapper.get_lr()['lr'][0])

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if runner.optim_wrapper.should_update():
            self.updates.append(runner.optim_wrapper.get_lr()['lr'][0])

    def before_train_epoch(self, runner):
        if runner.epoch == self.stop:
            raise KeyboardInterrupt


def run(work_dir, accumulated, stop=None, resume=False):
    cfg = Config(dict(
        model=dict(type='LittleOfRates'),
        work_dir=str(work_dir),
        train_dataloader=dict(
            batch_size=1, dataset=[dict(inputs=torch.zeros(1))] * LENGTH, sampler=dict(type='DefaultSampler')
        ),
        train_cfg=dict(by_epoch=True, max_epochs=EPOCHS),
        optim_wrapper=dict(
            type='OptimWrapper', optimizer=dict(type='SGD', lr=PEAK), accumulative_counts=accumulated
        ),
        param_scheduler=[
            dict(type='mim_mm.WarmupLR', end=WARM, convert_to_iter_based=True),
            dict(type='mim_mm.HalfCosineLR', eta_min_ratio=FLOOR / PEAK, begin=WARM, convert_to_iter_based=True),
        ],
        default_scope='mmengine',
        default_hooks=dict(checkpoint=dict(type='mim_mm.AtomicCheckpointHook', interval=1)),
        resume=resume,
        log_level='ERROR',
        experiment_name=f'{work_dir.name}-{resume}',
    ))  # fmt: skip
    runner = Runner.from_cfg(cfg)
    notes = Notes(stop)
    runner.register_hook(notes, 'NORMAL')  # before the hook that steps the schedulers
    try:
        runner.train()
    except KeyboardInterrupt:
        pass
    return notes


@pytest.mark.parametrize('accumulated', [1, 4])
def test_a_run_and_a_resumed_run_follow_mae(accumulated, tmp_path):
    wanted = mae(accumulated, 1.0)
    whole = run(tmp_path / f'whole{accumulated}', accumulated)
    assert whole.rates == pytest.approx(wanted, abs=1e-15)
    assert whole.updates == pytest.approx(wanted[::accumulated], abs=1e-15), 'of the first micro-step, as MAE'
    folder = tmp_path / f'parts{accumulated}'
    first = run(folder, accumulated, stop=3)
    second = run(folder, accumulated, resume=True)
    assert len(first.rates) == 3 * LENGTH
    assert first.rates + second.rates == pytest.approx(wanted, abs=1e-15)


RECIPES = [p for f in (*FOLDERS, 'mae', 'emae', 'sbam', 'amr', 'simmim', 'beit', 'cae', 'cmae', 'bootmae', 'ibot',
                              'dino', 'attmask', 'mocov3', 'msn', 'ijepa', 'data2vec', 'pixio', 'convnets') for p in
           sorted((CONFIGS / f).glob('*.py'))]  # fmt: skip


def expected_way(path):
    name = f'{path.parent.name}/{path.stem}'
    if any(word in name for word in ('simmim', 'lowshot', 'vits_scratch')) or (
        'mocov3' in name and path.parent.name != 'mocov3'
    ):
        return 'timm'
    if ('msn' in name and path.parent.name != 'linear') or path.parent.name == 'ijepa':
        return 'msn'
    if path.parent.name in ('beit', 'cae') or 'cae_attentive' in name:
        return 'beit'
    if 'data2vec2' in name:
        return 'mae'
    fine = path.parent.name == 'finetune'
    if (
        not fine
        and path.parent.name not in ('linear', 'seg')
        and re.search('cmae|bootmae|ibot|dino|attmask|data2vec', name)
    ):
        return 'beit'
    words = ('beit', 'cae', 'cmae', 'bootmae', 'ibot', 'data2vec', 'vits_finetune_200e')
    return 'beit' if fine and any(k in name for k in words) else 'mae'


@pytest.mark.parametrize('path', RECIPES, ids=lambda p: p.stem)
def test_each_recipe_warms_up_as_its_release(path):
    schedulers = Config.fromfile(path).param_scheduler
    schedulers = schedulers if isinstance(schedulers, list) else [schedulers]
    kinds = [s.type.split('.')[-1] for s in schedulers]
    assert 'LinearLR' not in kinds, 'reaches its peak an iteration early'
    for kind, scheduler in zip(kinds, schedulers):
        if kind in ('WarmupLR', 'HalfCosineLR', 'StepsLR', 'HalfCosineWeightDecay'):
            assert scheduler.get('like', 'mae') == expected_way(path)
        else:  # by epoch or at milestones, where nothing is to be added
            assert ROOT.get(scheduler.type) is not None and not scheduler.get('convert_to_iter_based')
    if 'WarmupLR' in kinds and expected_way(path) != 'timm' and path.parent.name not in ('coco', 'seg'):
        # where theirs begin: CMAE's LinearLR, MSN's and I-JEPA's 2e-4 of 1e-3, fairseq's at the smallest rate
        wanted = 1e-4 if 'cmae' in path.stem else 0.2 if expected_way(path) == 'msn' else None
        wanted = {'vitb_finetune_data2vec2_100e': 1e-3, 'vitl_finetune_data2vec2_50e': 2e-4}.get(path.stem, wanted)
        assert schedulers[0].get('start_factor') == wanted, 'from zero'
