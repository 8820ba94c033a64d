"""A run resumes as the run it was: its options, its config, its tensors, its images; weights that start one fit."""

import argparse
import copy
import json
import os
import shutil

import pytest
import torch
from mmengine.config import Config
from mmengine.model import BaseModule
from tiny_run import ROOT, SHRINK, TINY_ARCH, as_words

from mim_mm.checkpoint.atomic import find_checkpoint
from mim_mm.checkpoint.read import LoadError
from mim_mm.engine.start import launch, run_record, same_tensors
from mim_mm.engine.start.checks import same_run
from mim_mm.engine.start.checks.words import ConfigError
from mim_mm.engine.start.learning import CONVERTED, NOT_LEARNED_KEYS, NOT_LEARNED_PATHS, RESUME_ONLY, why_not_learned

READ = {
    'model',
    'custom_hooks',
    'default_hooks',
    'optim_wrapper',
    'train_dataloader',
    'train_cfg',
    'param_scheduler',
    'randomness',
    'val_dataloader',
}
BASE = dict(
    model=dict(type='EMAE', masker=dict(num_parts=4), consistency_weight=1.0, decoder=dict(embed_dims=32)),
    optim_wrapper=dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=0.1, betas=(0.9, 0.95))),
    train_dataloader=dict(batch_size=8, num_workers=2, dataset=dict(type='A', data_root='/a', ann_file='/a/x.txt')),
    val_dataloader=dict(batch_size=4),
    train_cfg=dict(max_epochs=4),
    param_scheduler=[dict(type='HalfCosineLR', begin=0, end=4, eta_min=0.0)],
    custom_hooks=[dict(type='mim_mm.FiniteLossHook'), dict(type='mim_mm.ProgressHook')],
    default_hooks=dict(logger=dict(type='LoggerHook', interval=1)),
    randomness=dict(seed=0),
    work_dir='/w',
    variable=1,
)


def compared(changes, allow=(), devices=(1, 1)):
    """(keys that are refused, keys that are said) where a run has these options in place of BASE's."""
    new = Config(copy.deepcopy(BASE))
    new.merge_from_dict(changes)
    refused, notes = same_run.compare(BASE, new.to_dict(), devices, allow, READ)
    return tuple([line.split(':')[0] for line in lines] for lines in (refused, notes))


@pytest.mark.parametrize(
    ('key', 'value'),
    [
        ('model.masker.num_parts', 7), ('model.consistency_weight', 0.1), ('model.decoder.embed_dims', 48),
        ('model.new', 1), ('optim_wrapper.optimizer.type', 'SGD'), ('optim_wrapper.optimizer.lr', 0.2),
        ('optim_wrapper.optimizer.betas', (0.9, 0.999)), ('optim_wrapper.type', 'AmpOptimWrapper'),
        ('train_dataloader.dataset.type', 'B'), ('train_dataloader.dataset.ann_file', '/a/y.txt'),
        ('param_scheduler.0.eta_min', 1.0), ('param_scheduler.0.end', 3), ('randomness.seed', 1),
        ('custom_hooks', []), ('custom_hooks.0.interval', 5), ('train_dataloader.batch_size', 4),
        ('optim_wrapper.accumulative_counts', 2),
    ],
)  # fmt: skip
def test_what_changes_learning_is_refused_unless_allowed(key, value):
    refused, _ = compared({key: value})
    assert [name for name in refused if key.startswith(name) or name.startswith(key)] == refused and refused
    top = key.split('.')[0]
    assert compared({key: value}, allow=[top])[0] == compared({key: value}, allow=refused)[0] == []
    assert compared({key: value}, allow=['other', key[:3]])[0] == refused, 'no prefix of a name'


@pytest.mark.parametrize(
    ('key', 'value'),
    [
        ('work_dir', '/x'), ('train_dataloader.num_workers', 9), ('default_hooks.logger.interval', 7), ('variable', 2),
        ('val_dataloader.batch_size', 9), ('init', 'a.pth'), ('env_cfg', dict(cudnn_benchmark=True)),
        ('train_cfg.max_epochs', 8),
    ],
)  # fmt: skip
def test_what_does_not_is_said(key, value):
    refused, said = compared({key: value})
    assert refused == [] and len(said) == 1 and said[0].startswith(key)


def test_batches_that_the_rate_follows():
    half = {'train_dataloader.batch_size': 4}
    assert compared({**half, 'optim_wrapper.accumulative_counts': 2})[0] == []  # as many images a step
    assert compared(half, devices=(1, 2))[0] == [] and compared({}, devices=(1, 2))[0] == ['devices']
    assert compared({**half, 'optim_wrapper.optimizer.lr': 0.05})[0] == []
    assert compared({'optim_wrapper.optimizer.lr': 0.2}, devices=(1, 2))[0] == []
    assert set(compared({**half, 'optim_wrapper.optimizer.lr': 0.06})[0]) == {*half, 'optim_wrapper.optimizer.lr'}


def test_the_same_run_in_other_words():
    """A moved data root, watching hooks, tuples for lists, whole numbers for floats: nothing is refused."""
    moved = dict(type='A', data_root='/b/', ann_file='/b/x.txt')
    hooks = [dict(type='mim_mm.ClockHook'), dict(type='mim_mm.FiniteLossHook'), dict(type='mim_mm.StopOnSignalHook')]
    changes = {'train_dataloader.dataset': moved, 'custom_hooks': hooks, 'optim_wrapper.optimizer.betas': [0.9, 0.95]}
    refused, said = compared({**changes, 'model.consistency_weight': 1})
    assert refused == [] and said == ['custom_hooks', 'data']
    longer = {'train_cfg.max_epochs': 8, 'param_scheduler.0.end': 8}
    assert compared(longer)[0] == []
    assert compared({**longer, 'param_scheduler.0.eta_min': 1})[0] == ['param_scheduler.HalfCosineLR.eta_min']


def test_each_line_of_the_table_has_a_reason():
    for table in (NOT_LEARNED_KEYS, NOT_LEARNED_PATHS, RESUME_ONLY, CONVERTED):
        assert all(isinstance(reason, str) and reason for reason in table.values())
    assert why_not_learned('a.b.num_workers') and why_not_learned('train_cfg.val_begin')
    assert why_not_learned('model.backbone') is None and why_not_learned('train_dataloader.dataset') is None


def test_moments_and_groups_are_compared():
    """Against optimizers that were built by hand: widths, order and number of parameters."""

    def adam(*widths, groups=None):
        parameters = [torch.nn.Parameter(torch.ones(width, 3)) for width in widths]
        groups = [[parameters[i] for i in group] for group in groups or [range(len(widths))]]
        optimizer = torch.optim.AdamW([dict(params=group) for group in groups])
        sum(parameter.sum() for parameter in parameters).backward()
        optimizer.step()
        return optimizer, {id(parameter): f'p{i}' for i, parameter in enumerate(parameters)}

    def problems(saved, mine, stored=None):
        return same_tensors.optimizer_problems(mine[0], saved[0].state_dict(), mine[1], stored)

    assert problems(adam(4, 5), adam(4, 5), [['p0', 'p1']]) == []
    assert 'exp_avg of p1 (5, 3) -> (6, 3)' in problems(adam(4, 5), adam(4, 6))[0]
    assert 'groups of 3 parameters' in problems(adam(4, 5, 6), adam(4, 5))[0]
    assert problems(adam(4, 4, groups=[[0], [1]]), adam(4, 4)) != []
    assert 'p0 -> p1' in problems(adam(4, 4), adam(4, 4), [['p1', 'p0']])[0].replace('p1 -> p0, ', '')
    own = same_tensors.tensor_kinds(torch.nn.Linear(3, 2))
    assert same_tensors.weight_problems(own, torch.nn.Linear(3, 2).state_dict(), 'model') == []
    found = same_tensors.weight_problems(own, dict(torch.nn.Linear(4, 2).half().state_dict(), other=torch.ones(1)), 'm')
    assert len(found) == 2 and 'weight (2, 4) float16 -> (2, 3) float32' in found[0] and 'other' in found[1]


def test_the_record_fills_what_the_command_line_leaves_open(tmp_path):
    def arguments(**given):
        empty = dict(
            config='c.py', cfg_options={}, allow_change=[], amp=False, compile=False, auto_scale_lr=False, log=[]
        )
        return argparse.Namespace(**{**empty, 'seed': None, 'data_root': None, 'resume': 'latest', **given})

    options = {'a.b': (1, 2), 'c': 'x', 'd.e': None, 'load_from': 'w.pth', 'f': dict(g=1)}
    run_record.write_record(
        tmp_path, arguments(cfg_options=options, amp=True, seed=0, allow_change=['a'], log=['mlflow'])
    )
    record = run_record.read_record(arguments(), tmp_path)
    args = arguments()
    assert '--seed 0' in run_record.go_on_as(args, record)
    assert args.cfg_options == {key: value for key, value in options.items() if key != 'load_from'}
    assert args.log == ['mlflow'] and args.amp and args.seed == 0 and not args.compile and args.allow_change == ['a']
    args = arguments(cfg_options={'c': 'y', 'f.g': 2, 'a': dict()}, seed=3)
    run_record.go_on_as(args, record)
    assert args.cfg_options == {'c': 'y', 'f.g': 2, 'a': dict(), 'd.e': None} and args.seed == 3
    assert args.allow_change == [], 'what was allowed once is not allowed for other values'
    for broken in ('{', '[]', '{"config": "c.py", "cfg_options": {"a": "__import__(\'os\')"}}'):
        (tmp_path / run_record.FILE_NAME).write_text(broken)
        assert run_record.read_record(arguments(), tmp_path) == {}
    assert run_record.read_record(arguments(resume=None), tmp_path) == {}


def test_a_copied_work_dir_keeps_to_itself(tmp_path):
    old, new = tmp_path / 'old', tmp_path / 'new'
    old.mkdir()
    for epoch in (1, 2):
        torch.save({'meta': {'time': f'20260101_00000{epoch}'}}, old / f'epoch_{epoch}.pth')
    (old / 'last_checkpoint').write_text(str(old / 'epoch_1.pth'))
    shutil.copytree(old, new)
    assert find_checkpoint(new) == (new / 'epoch_1.pth', '')
    (new / 'last_checkpoint').write_text(str(old / 'epoch_3.pth'))
    torch.save({}, old / 'epoch_3.pth')
    os.utime(new / 'epoch_2.pth', (0, 0))  # as a copy may have it: the file says itself when it was written
    found, said = find_checkpoint(new)
    assert found == new / 'epoch_2.pth' and 'epoch_3.pth, which is not in this work dir' in said and 'epoch_2' in said
    data = (new / 'epoch_2.pth').read_bytes()
    (new / 'epoch_2.pth').write_bytes(data[:-9])
    (new / 'last_checkpoint').write_text('epoch_2.pth')
    found, said = find_checkpoint(new)
    assert found == new / 'epoch_1.pth' and 'cut off' in said
    (new / 'last_checkpoint').write_bytes(b'\0\xff')
    assert find_checkpoint(new)[0] == new / 'epoch_1.pth'
    elsewhere = tmp_path / 'big' / 'new'
    elsewhere.mkdir(parents=True)
    torch.save({}, elsewhere / 'epoch_9.pth')
    (new / 'last_checkpoint').write_text(str(elsewhere / 'epoch_9.pth'))
    assert (
        find_checkpoint(new)[0].parent == new and find_checkpoint(new, tmp_path / 'big')[0] == elsewhere / 'epoch_9.pth'
    )


class Part(BaseModule):
    def __init__(self, init_cfg=None):
        super().__init__(init_cfg)
        self.one, self.two = torch.nn.Linear(3, 3), torch.nn.Linear(3, 3)


def test_init_cfg_fills_its_module_or_stops(tmp_path):
    part = Part()
    torch.save(part.state_dict(), tmp_path / 'whole.pth')
    torch.save({f'backbone.{name}': value for name, value in part.state_dict().items()}, tmp_path / 'other.pth')
    torch.save({name: value for name, value in part.state_dict().items() if 'one' in name}, tmp_path / 'half.pth')
    fresh = Part(dict(type='Pretrained', checkpoint=str(tmp_path / 'whole.pth')))
    fresh.init_weights()
    assert torch.equal(fresh.two.weight, part.two.weight)
    for name, share in (('other', '0.00'), ('half', '50.00')):
        with pytest.raises(LoadError, match=f'{name}.pth fills {share} % of the model, at least 95 %'):
            Part(dict(type='Pretrained', checkpoint=str(tmp_path / f'{name}.pth'))).init_weights()
    prefixed = Part(dict(type='Pretrained', checkpoint=str(tmp_path / 'other.pth'), prefix='backbone.'))
    prefixed.init_weights()
    assert torch.equal(prefixed.one.weight, part.one.weight)


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / 'recipe.py'
    path.write_text(
        f'_base_ = {str(ROOT / "configs/emae/emae_vitb_800e.py")!r}\n'
        f'model = dict(backbone=dict(arch=dict(_delete_=True, **{TINY_ARCH})))\n'
        'optim_wrapper = dict(accumulative_counts=1)\ntrain_cfg = dict(max_epochs=2)\n'
    )
    return path


def test_by_the_tool(image_folder, recipe, tmp_path, capfd, monkeypatch):
    """One run with other K; resumed without options, without a config, into other models; a start from its weights."""
    shrink = {key: value for key, value in SHRINK.items() if key != 'model.backbone.arch'}
    shrink |= {'train_dataloader.dataset.data_prefix': '', 'default_hooks.checkpoint.max_keep_ckpts': -1}
    work_dir, trained = tmp_path / 'w', []

    def train(*argv):
        def built(cfg, notes, args):  # up to the first iteration, and no further
            runner = launch._build_runner(cfg)
            runner.train_loop.run = lambda: trained.append((runner, notes))
            runner.train()

        monkeypatch.setattr(launch, '_train', built)
        monkeypatch.setattr(launch, 'leave', lambda *_: None)
        launch.train_main([str(word) for word in argv])
        return trained[-1]

    def refused(*argv):
        with pytest.raises(SystemExit):
            train(*argv)
        return capfd.readouterr().err

    options = ['--cfg-options', *as_words(shrink), 'model.masker.num_parts=7']
    monkeypatch.setattr(launch, 'leave', lambda *_: None)
    launch.train_main([str(recipe), '--work-dir', str(work_dir), '--data-root', str(image_folder), *options])
    (work_dir / 'epoch_2.pth').unlink()
    (work_dir / 'last_checkpoint').write_text(str(work_dir / 'epoch_1.pth'))
    assert json.loads((work_dir / 'launched.json').read_text())['cfg_options']['model.masker.num_parts'] == '7'

    for words in (
        [recipe, '--work-dir', work_dir],
        ['--work-dir', work_dir],
        [recipe, '--work-dir', work_dir, *options],
    ):
        runner, notes = train(*words, '--resume')
        assert runner.cfg.model.masker.num_parts == 7 and runner.epoch == 1
        assert not any('changed since' in note for note in notes)
    here = [recipe, '--work-dir', work_dir, '--resume']
    assert 'model.masker.num_parts: 7 -> 4' in refused(*here, '--cfg-options', 'model.masker.num_parts=4')
    allowed = ['--allow-change', 'model.masker', '--cfg-options', 'model.masker.num_parts=4']
    assert train(*here, *allowed)[0].cfg.model.masker.num_parts == 4
    for width in (16, 48):
        wider = ['--cfg-options', f'model.decoder.embed_dims={width}']
        assert f'model.decoder.embed_dims: 32 -> {width}' in refused(*here, *wider)
        assert f'decoder.mask_token (1, 1, 32) float32 -> (1, 1, {width})' in refused(
            *here, *wider, '--allow-change', 'model'
        )
    extra = image_folder / 'class0' / 'more.png'
    shutil.copy(image_folder / 'class0' / '0.png', extra)
    assert '10 -> 11 images' in refused(*here)
    extra.unlink()
    with pytest.raises(ConfigError, match='has no launched.json'):
        launch._as_started(argparse.Namespace(config=None, work_dir=str(tmp_path), resume='latest'))

    # a start from weights: the whole model, and nothing of it
    fresh = [recipe, '--data-root', image_folder, *options]
    train(*fresh, f'load_from={work_dir / "epoch_1.pth"}', f'work_dir={tmp_path / "f"}', '--work-dir', tmp_path / 'f')
    report = json.loads((tmp_path / 'f' / 'load_report.json').read_text())
    assert report['fraction'] == 1.0 and report['random'] == [] and report['what'] == 'model'
    torch.save({'state_dict': {'nothing': torch.ones(3)}}, tmp_path / 'other.pth')
    said = refused(*fresh, f'load_from={tmp_path / "other.pth"}', '--work-dir', tmp_path / 'g')
    assert 'load_from' in said and 'fills 0.00 % of the model' in said
    train(*fresh, f'load_from={tmp_path / "other.pth"}', 'min_loaded=0', '--work-dir', tmp_path / 'h')
