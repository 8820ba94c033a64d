"""Runs of iBOT through mmengine's Runner: frozen layers, resumed runs, clipped gradients, and alarms of collapse."""

import copy
import logging
from types import SimpleNamespace

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner
from tiny import VIT
from tiny_run import Killed, StopHook

from mim_mm.engine.hooks.freeze_hook import FreezeHook
from mim_mm.engine.optim.clipping import clip_each_
from mim_mm.evaluation.quality.collapse_hook import CollapseHook
from mim_mm.evaluation.quality.variety import collapse_signs, variety

MODEL = dict(
    type='mim_mm.iBOT',
    _scope_='mim_mm',
    backbone=dict(VIT, drop_path_rate=0.2),
    head=dict(out_dims=24, hidden_dims=16, bottleneck_dims=8),
    masker=dict(type='DrawnRatio', ratio=None, masker=dict(type='AttMask', variant='hint', round_down=True)),
)


class Views(torch.utils.data.Dataset):
    def __len__(self):
        return 4

    def __getitem__(self, index):
        generator = torch.Generator().manual_seed(index)
        return dict(inputs=[torch.randn(3, side, side, generator=generator) for side in (32, 32, 16)])


class SeedsEachStep(Hook):
    """What is drawn from the global generator, drop path, is that of the step, as an exact resume has it."""

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        torch.manual_seed(1000 + runner.iter)


def run(work_dir, name, hooks=(), resume=False):
    runner = Runner(
        copy.deepcopy(MODEL),
        work_dir=str(work_dir),
        train_dataloader=dict(
            batch_size=2, num_workers=0, dataset=Views(), sampler=dict(type='DefaultSampler', shuffle=False),
            collate_fn=dict(type='default_collate'),
        ),
        train_cfg=dict(by_epoch=True, max_epochs=3),
        optim_wrapper=dict(
            type='mim_mm.AutocastOptimWrapper', on_cpu=False, clip_grad=dict(type='tensor', max_norm=0.3),
            optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.04),
        ),
        param_scheduler=[
            dict(type='mim_mm.HalfCosineLR', like='beit', convert_to_iter_based=True),
            dict(type='mim_mm.HalfCosineWeightDecay', like='beit', eta_min=0.4, convert_to_iter_based=True),
        ],
        default_hooks=dict(
            checkpoint=dict(type='mim_mm.AtomicCheckpointHook', interval=1), clock=dict(type='mim_mm.ClockHook'),
            resume_schedule=dict(type='mim_mm.ResumeScheduleHook'), logger=None, runtime_info=None,
        ),
        custom_hooks=[SeedsEachStep(), FreezeHook(epochs=1), CollapseHook(interval=1), *hooks],
        default_scope='mmengine',
        experiment_name=name,
        randomness=dict(seed=7),
        resume=resume,
        log_level='ERROR',
    )  # fmt: skip
    try:
        runner.train()
    except Killed:
        pass
    return runner


class Keeps(StopHook):
    """Remembers the last layer after each epoch, and stops after none."""

    def __init__(self):
        self.layers = []

    def after_train_epoch(self, runner):
        self.layers.append(copy.deepcopy(runner.model.head.last_layer.state_dict()))


def test_a_stopped_run_goes_on_bit_for_bit_and_the_last_layer_thaws(tmp_path):
    keeps = Keeps()
    whole = run(tmp_path / 'whole', 'whole', [keeps])
    student, teacher = (m.layers[-1].ffn.dropout_layer for m in (whole.model.backbone, whole.model.teacher['backbone']))
    assert (student.drop_prob, teacher.drop_prob) == (0.2, 0.0)
    moved = [
        not all(map(torch.equal, before.values(), after.values()))
        for before, after in zip(keeps.layers, keeps.layers[1:])
    ]
    assert moved == [True, True]
    start = torch.load(tmp_path / 'whole/epoch_1.pth', weights_only=False)['state_dict']
    v = 'last_layer.parametrizations.weight.original1'
    # Nor did the teacher's, but for the rounding of an average of equal numbers.
    torch.testing.assert_close(start[f'head.{v}'], start[f'teacher.head.{v}'], rtol=0, atol=1e-7)
    assert (start['head.mlp.0.weight'] - start['teacher.head.mlp.0.weight']).abs().max() > 1e-4
    stop = StopHook(1)
    stop.priority = 'LOWEST'  # after the checkpoint
    run(tmp_path / 'parts', 'first', [stop])
    parts = run(tmp_path / 'parts', 'second', resume=True)
    assert parts.iter == whole.iter == 6
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, parts.model.state_dict()[name]), name
    ours, theirs = (r.optim_wrapper.optimizer.state_dict() for r in (whole, parts))
    assert ours['param_groups'] == theirs['param_groups']
    assert all(
        torch.equal(value, theirs['state'][index][key])
        for index, entries in ours['state'].items()
        for key, value in entries.items()
    )
    assert parts.message_hub.get_scalar('train/feature_rank').current() > 1


def test_freezing_says_what_it_does_not_find():
    model = torch.nn.Linear(2, 2)
    runner = SimpleNamespace(model=model, train_dataloader=[0], iter=0)
    with pytest.raises(ValueError, match=r"no parameter of Linear is called \['last_layer'\]"):
        FreezeHook().before_train(runner)
    with pytest.raises(ValueError, match='no length'):
        runner.train_dataloader = iter([0])
        FreezeHook(['weight']).before_train(runner)


def test_each_gradient_is_clipped_by_its_own_norm():
    parameters = [torch.nn.Parameter(torch.zeros(3)) for _ in range(3)]
    parameters[0].grad, parameters[1].grad = torch.tensor([3.0, 0.0, 4.0]), torch.tensor([0.0, 0.5, 0.0])
    assert float(clip_each_(parameters, 1.0)) == 5
    torch.testing.assert_close(parameters[0].grad, torch.tensor([3.0, 0.0, 4.0]) / (5 + 1e-6))
    assert parameters[1].grad.tolist() == [0.0, 0.5, 0.0] and parameters[2].grad is None


# ---- alarms


def test_variety_of_features_that_are_known():
    torch.manual_seed(0)
    same = torch.randn(1, 16).expand(200, 16)
    assert variety(same) == pytest.approx(dict(feature_std=0, feature_rank=1), abs=1e-3)
    # Four directions of equal weight: four equal singular values.
    four = torch.eye(16)[:4].repeat(50, 1)
    assert variety(four)['feature_rank'] == pytest.approx(4, abs=1e-4)
    anywhere = variety(torch.randn(2000, 16))
    assert anywhere['feature_std'] == pytest.approx(1, abs=0.03) and anywhere['feature_rank'] > 15.9


def test_the_signs_are_those_of_the_two_ways_to_collapse():
    well = dict(feature_std=0.8, feature_rank=90.0, teacher_entropy=0.5, teacher_spread=0.7)
    assert not collapse_signs(well, 256)
    for name, value, sign in (
        ('feature_std', 0.01, 'std'), ('feature_rank', 1.2, 'rank'), ('teacher_entropy', 0.999, 'uniform'),
        ('teacher_spread', 0.01, 'constant'),
    ):  # fmt: skip
        assert set(collapse_signs({**well, name: value}, 256)) == {sign}


def test_the_hook_warns_once_after_some_looks(caplog):
    log = logging.getLogger('collapse-test')
    hub = SimpleNamespace(update_scalar=lambda *args: None)
    model = SimpleNamespace(seen_features=torch.ones(8, 4), num_prototypes=10)
    runner = SimpleNamespace(model=model, iter=0, message_hub=hub, logger=log, train_dataloader=[0, 0])
    hook = CollapseHook(interval=1, patience=3)
    with caplog.at_level('WARNING', logger='collapse-test'):
        for step in range(10):
            runner.iter = step
            hook.after_train_iter(runner, step, outputs=dict(teacher_entropy=torch.tensor(2.0)))
    said = [record.message for record in caplog.records]
    assert len(said) == 2 and all(text.startswith('iteration 5: features') for text in said), said
    model.seen_features = None
    hook.after_train_iter(runner, 10)
