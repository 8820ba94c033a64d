"""Guards, schedules, precision, hooks: what runs around the model."""

import types
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.logging import HistoryBuffer

from mim_mm.engine.hooks.clock_hook import accumulation_note
from mim_mm.engine.hooks.histories import forget, logged, longest_average
from mim_mm.engine.hooks.later import Later
from mim_mm.engine.hooks.matmul_hook import MatmulPrecisionHook
from mim_mm.engine.hooks.pretrain_hooks import AgreementWatchHook
from mim_mm.engine.optim.precision import AutocastOptimWrapper
from mim_mm.engine.start import guard, schedule
from mim_mm.registry import HOOKS, MODELS, OPTIM_WRAPPERS


def config(**extra):
    return Config(dict(
        model=dict(type='mim_mm.EMAE', backbone=dict(type='X')),
        train_cfg=dict(by_epoch=True, max_epochs=800),
        param_scheduler=[
            dict(type='LinearLR', begin=0, end=40),
            dict(type='CosineAnnealingLR', begin=40),
        ],
        optim_wrapper=dict(optimizer=dict(type='AdamW', lr=2.4e-3)),
        train_dataloader=dict(batch_size=512, dataset=dict(type='UnlabelledImages', data_root='nowhere')),
        auto_scale_lr=dict(base_batch_size=4096),
        **extra,
    ))  # fmt: skip


@pytest.mark.parametrize('typo, meant', [
    ('parma_scheduler', 'param_scheduler'), ('optim_wraper', 'optim_wrapper'), ('train_cgf', 'train_cfg'),
    ('costum_hooks', 'custom_hooks'), ('custom_hook', 'custom_hooks'), ('val_evalautor', 'val_evaluator'),
])  # fmt: skip
def test_misspelt_top_level_keys_stop_with_the_nearest(typo, meant):
    with pytest.raises(guard.ConfigError, match=f"'{typo}'.*'{meant}'"):
        guard.check_config(config(**{typo: dict()}))


def test_own_variables_pass():
    guard.check_config(
        config(
            data_root='a', train_pipeline=[dict(type='X')], test_pipeline=[], epochs=3, base_batch=4096, bgr_mean=[1]
        )
    )


def test_misspelt_default_hooks_stop():
    with pytest.raises(guard.ConfigError, match="'chekpoint'.*'checkpoint'"):
        guard.check_config(config(default_hooks=dict(chekpoint=dict(type='CheckpointHook'))))


def test_options_must_begin_with_something_known():
    guard.check_options(config(), {'model.backbone.depth': 3, 'custom_hooks': [], 'param_scheduler.0.end': 5})
    with pytest.raises(guard.ConfigError, match="'modle'.*'model'"):
        guard.check_options(config(), {'modle.backbone.depth': 3})
    with pytest.raises(guard.ConfigError, match='no index of a list of 2'):
        guard.check_options(config(), {'param_scheduler.2.end': 5})


def test_pretrained_weights_are_an_option_of_what_loads_them():
    def checked(options, **extra):
        cfg = config(**extra)
        guard.check_options(cfg, options)
        cfg.merge_from_dict(options)
        guard.check_config(cfg)
        return cfg.get('init')

    loads = dict(custom_hooks=[dict(type='mim_mm.LoadPretrainedHook', checkpoint=None)])
    assert checked({'init': 'a.pth'}, **loads, init=None) == 'a.pth'
    assert checked({'init': 'a.pth'}, **loads) == 'a.pth', 'a recipe written before the key was'
    assert checked({'custom_hooks.0.checkpoint': 'a.pth'}, **loads, init=None) is None
    for typo in ('int', 'inti', 'inits'):
        with pytest.raises(guard.ConfigError, match=f"the config has no '{typo}': did you mean 'init'"):
            checked({typo: 'a.pth'}, **loads)
    with pytest.raises(guard.ConfigError, match="'inits' is not known.*'init'"):
        checked({}, **loads, inits='a.pth')
    with pytest.raises(guard.ConfigError, match='init=a.pth names a pretrained encoder, and nothing in this config'):
        checked({'init': 'a.pth'})
    assert checked({}, init=dict(type='TruncNormal')), 'a variable of a pretraining recipe'


def test_a_missing_data_root_says_how_to_lay_it_out(tmp_path):
    with pytest.raises(guard.ConfigError, match=r"no folder 'nowhere'.*train/<class>.*IMAGENET_ROOT.*--data-root"):
        guard.check_data_roots(config())
    cfg = config()
    dataset = dict(
        type='CocoDataset', data_root=str(tmp_path), ann_file='annotations/a.json', data_prefix=dict(img='x/')
    )
    cfg.train_dataloader.dataset = dict(type='RepeatDataset', times=2, dataset=dataset)
    with pytest.raises(guard.ConfigError, match=r'annotations/a.json. is missing.*instances_'):
        guard.check_data_roots(cfg)
    (tmp_path / 'annotations').mkdir()
    (tmp_path / 'annotations/a.json').write_text('{}')
    (tmp_path / 'x').mkdir()
    guard.check_data_roots(cfg)


def test_set_data_root_reaches_wrapped_datasets_and_evaluators():
    cfg = config(data_root='data/coco', val_evaluator=dict(ann_file='data/coco/annotations/a.json'))
    cfg.train_dataloader.dataset = dict(type='RepeatDataset', dataset=dict(type='CocoDataset', data_root='data/coco'))
    guard.set_data_root(cfg, '/mine')
    assert cfg.train_dataloader.dataset.dataset.data_root == '/mine'
    assert cfg.val_evaluator.ann_file == '/mine/annotations/a.json'


def test_resume_must_find_what_it_names(tmp_path):
    assert guard.resolve_resume(None, str(tmp_path)) is None
    assert guard.resolve_resume('auto', str(tmp_path)) is None
    with pytest.raises(guard.ConfigError, match='no whole checkpoint'):
        guard.resolve_resume('latest', str(tmp_path))
    with pytest.raises(guard.ConfigError, match='does not exist'):
        guard.resolve_resume(str(tmp_path / 'a.pth'), str(tmp_path))
    torch.save({'a': 1}, tmp_path / 'epoch_3.pth')
    assert guard.resolve_resume('latest', str(tmp_path)) == str(tmp_path / 'epoch_3.pth')
    data = (tmp_path / 'epoch_3.pth').read_bytes()
    (tmp_path / 'epoch_4.pth').write_bytes(data[: len(data) // 2])
    (tmp_path / 'last_checkpoint').write_text(str(tmp_path / 'epoch_4.pth'))
    assert guard.resolve_resume('latest', str(tmp_path)) == str(tmp_path / 'epoch_3.pth')
    with pytest.raises(guard.ConfigError, match='cut off'):
        guard.resolve_resume(str(tmp_path / 'epoch_4.pth'), str(tmp_path))


def test_a_shortened_run_keeps_a_whole_schedule():
    cfg = config()
    assert schedule.fit_schedule(cfg) == []
    cfg.train_cfg.max_epochs = 60
    assert schedule.fit_schedule(cfg) == ['warm-up 40 -> 3 epochs']
    assert cfg.param_scheduler[0].end == cfg.param_scheduler[1].begin == 3
    cfg.train_cfg.max_epochs = 2
    assert schedule.fit_schedule(cfg) == ['warm-up 3 -> 0 epochs']
    assert [s.type for s in cfg.param_scheduler] == ['CosineAnnealingLR'] and cfg.param_scheduler[0].begin == 0
    explicit = config()
    explicit.param_scheduler[1].update(end=800, T_max=760)
    explicit.train_cfg.max_epochs = 400
    assert schedule.fit_schedule(explicit) == ['CosineAnnealingLR ends at 800 -> 400 epochs']
    assert explicit.param_scheduler[1].end == 400 and explicit.param_scheduler[1].T_max == 360


def test_steps_that_never_come_are_named():
    cfg = config()
    cfg.param_scheduler[1] = dict(type='MultiStepLR', begin=40, end=800, milestones=[88, 96])
    cfg.train_cfg.max_epochs = 100
    assert schedule.fit_schedule(cfg) == ['MultiStepLR ends at 800 -> 100 epochs']
    cfg.train_cfg.max_epochs = 90
    assert 'steps at [96], but training ends at 90 epochs' in schedule.fit_schedule(cfg)[-1]


def test_learning_rate_follows_batch_times_gpus_times_accumulation():
    cfg = config()
    assert schedule.effective_batch(cfg, 8) == 4096
    cfg.optim_wrapper.accumulative_counts = 2
    schedule.scale_lr(cfg, 2)
    assert cfg.optim_wrapper.optimizer.lr == pytest.approx(2.4e-3 * 2048 / 4096)
    assert cfg.auto_scale_lr.enable is False  # or mmengine would scale a second time
    cfg.auto_scale_lr = dict()
    with pytest.raises(ValueError, match='base_batch_size'):
        schedule.scale_lr(cfg, 2)


def optimizer():
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)


@pytest.mark.parametrize('on_cpu, dtype', [(True, torch.bfloat16), (False, torch.float32)])
def test_autocast_wrapper_runs_on_a_cpu(on_cpu, dtype, monkeypatch):
    monkeypatch.setattr('mim_mm.engine.optim.precision.get_device', lambda: 'cpu')
    wrapper = OPTIM_WRAPPERS.build(dict(type='AutocastOptimWrapper', on_cpu=on_cpu, optimizer=optimizer()))
    layer = torch.nn.Linear(2, 2)
    with wrapper.optim_context(layer):
        out = layer(torch.ones(1, 2))
    assert out.dtype == dtype
    wrapper.update_params(out.float().sum())
    assert not any('scaler' in key for key in wrapper.state_dict())


def test_autocast_wrapper_refuses_fp16():
    with pytest.raises(ValueError, match='AmpOptimWrapper'):
        AutocastOptimWrapper(dtype='float16', optimizer=optimizer())


def runner_stub(iteration, **extra):
    return types.SimpleNamespace(iter=iteration, **extra)


@pytest.mark.parametrize('mse, consistency, warns', [(0.99, 0.004, True), (0.4, 0.004, False), (0.99, 0.5, False)])
def test_agreement_without_reconstruction_raises_an_alarm_once(mse, consistency, warns):
    hook, warnings = AgreementWatchHook(interval=1, patience=3), []
    runner = runner_stub(0, logger=types.SimpleNamespace(warning=warnings.append))
    for step in range(6):
        runner.iter = step
        outputs = dict(mse=torch.tensor(mse), mse_patch_mean=torch.tensor(1.0), consistency=torch.tensor(consistency))
        hook.after_train_iter(runner, step, outputs=outputs)
    assert len(warnings) == int(warns)
    if warns:
        assert 'consistency_weight' in warnings[0]


@pytest.mark.parametrize('epoch', [312, 60, 7, 3])
def test_the_watch_speaks_within_the_first_epoch(epoch):
    said = {}
    for name, mse, consistency in (('collapsed', 0.99, 0.004), ('sound', 0.6, 0.4)):
        lines = said[name] = []
        logger = types.SimpleNamespace(
            warning=lambda text, lines=lines: lines.append(('warning', text)),
            info=lambda text, lines=lines: lines.append(('info', text)),
        )
        hook, runner = AgreementWatchHook(), runner_stub(0, logger=logger, train_dataloader=[None] * epoch)
        for step in range(epoch):
            runner.iter = step
            outputs = dict(mse=mse, mse_patch_mean=1.0, consistency=consistency)
            hook.after_train_iter(runner, step, outputs=outputs)
    assert [kind for kind, _ in said['sound']] == ['info']
    assert 'difference between parts 0.2000, mse 0.6000 against 1.0000' in said['sound'][0][1]
    assert [kind for kind, _ in said['collapsed'] if kind == 'warning'] == ['warning']
    assert 'do not reconstruct' in said['collapsed'][0][1] and '(0.1)' in said['collapsed'][0][1]
    if epoch < 5:
        assert 'may have collapsed' in said['collapsed'][0][1]


AMR = dict(type='AdaptiveRatio', base=0.75, delta_r=0.1, threshold=0.5)


@pytest.mark.parametrize('masker, weight, steps, says', [
    (dict(type='SalienceMasking', ratio=AMR), 0, 2, True),
    (dict(type='SalienceMasking', ratio=AMR), 0, 1, False),
    (dict(type='SalienceParallelMasking', ratio=AMR), 0, 2, True),
    (dict(type='SalienceMasking'), 0, 4, False),
    (dict(type='BlockMasking', fill='none'), 0, 4, True),
    (dict(type='BlockMasking', ratio=(0.1, 0.5)), 0, 4, True),
    (dict(type='BlockMasking'), 0, 4, False),
    (dict(type='AttMask'), 0, 2, True),
    (dict(type='AttMask', ratio=0.75), 0, 2, False),
    (dict(type='IndependentMasking', num_parts=4), 0, 2, False),
    (dict(type='IndependentMasking', num_parts=4), 1, 2, True),
    (dict(type='ParallelMasking'), 1, 8, False),
    (dict(type='ParallelMasking', num_parts=5), 1, 8, False),
    (dict(type='SalienceParallelMasking'), 1, 8, False),
    (None, 1, 2, True),
])  # fmt: skip
def test_accumulation_of_unequal_micro_batches_is_said(masker, weight, steps, says):
    class Own:
        def __call__(self, tokens, generator=None): ...

    model = torch.nn.Linear(1, 1)
    model.masker = Own() if masker is None else MODELS.build(dict(masker))
    model.consistency_weight = weight
    note = accumulation_note(model, steps)
    assert bool(note) == says
    if says:
        assert f'{steps} micro-batches' in note and type(model.masker).__name__ in note


def test_waiting_metrics_hold_no_graph():
    hook = HOOKS.build(dict(type='DeferredRuntimeInfoHook'))
    hook.waiting, hook.log_interval = [], 5
    runner = runner_stub(0, train_dataloader=[None] * 12, max_iters=12)
    weight = torch.ones(2, requires_grad=True)
    hook.after_train_iter(runner, 0, outputs={'loss': (weight * 2).sum()})
    assert hook.waiting[0]['loss'] == 4 and hook.waiting[0]['loss'].grad_fn is None


def test_deferred_metrics_give_the_same_history_without_reading_in_between():
    reads = []

    class Loud(float):
        """A value that records when somebody looks at it."""

        def item(self):
            reads.append(float(self))
            return float(self)

    class Hub:
        def __init__(self):
            self.log_scalars = {}

        def update_scalar(self, key, value):
            self.log_scalars.setdefault(key, HistoryBuffer()).update(value.item())

    hook = HOOKS.build(dict(type='DeferredRuntimeInfoHook'))
    hook.waiting, hook.log_interval, hook.kept = [], 5, 5000
    hook.memory = SimpleNamespace(gib=lambda: None)
    runner = runner_stub(0, message_hub=Hub(), train_dataloader=[None] * 12, max_iters=12)
    for step in range(12):
        runner.iter = step
        hook.after_train_iter(runner, step, outputs={'loss': Loud(step)})
        assert len(reads) == (0 if step < 4 else 5 if step < 9 else 10 if step < 11 else 12)
    assert runner.message_hub.log_scalars['train/loss'].data[0].tolist() == list(range(12))


def test_of_a_metric_the_newest_values_are_kept_and_all_are_counted():
    buffer = HistoryBuffer()
    for step in range(95):
        buffer.update(step)
        forget(buffer, 10)
        assert logged(buffer) == step + 1 and min(step + 1, 10) <= len(buffer.data[0]) < 20
        assert buffer.mean(10) == np.mean(range(step + 1)[-10:])
    assert buffer.data[0].tolist() == list(range(80, 95)) and buffer.data[1].tolist() == [1] * 15


@pytest.mark.parametrize('windows, longest', [
    ([], 5000), ([20], 5000), ([20, 9000], 9000), (['epoch'], 5000), ([20, 'global'], float('inf')),
])  # fmt: skip
def test_no_more_is_forgotten_than_the_log_averages_over(windows, longest):
    processor = SimpleNamespace(custom_cfg=[dict(data_src='loss', window_size=window) for window in windows])
    assert longest_average(SimpleNamespace(train_dataloader=[None] * 12, log_processor=processor)) == longest
    long = SimpleNamespace(train_dataloader=range(7000), log_processor=processor)
    assert longest_average(long) == max(7000, longest)


def test_fp32_products_in_tf32_during_training_only():
    before = torch.get_float32_matmul_precision()
    hook = MatmulPrecisionHook(precision='high')
    hook.before_train(None)
    assert torch.get_float32_matmul_precision() == 'high'
    hook.after_train(None)
    assert torch.get_float32_matmul_precision() == before
    with pytest.raises(ValueError, match="'medium': use 'high' .TF32. or 'highest'"):
        MatmulPrecisionHook(precision='medium')


def test_numbers_of_a_cpu_are_those_of_the_moment_they_were_sent():
    values = torch.tensor([1.5, 2.0])
    sent = Later(values)
    values.zero_()
    assert sent.arrived and sent.tolist() == [1.5, 2.0]
