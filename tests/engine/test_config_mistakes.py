"""Plausible mistakes stop before anything is read or built, in one line with the fix; near misses pass."""

import copy
import shutil
import subprocess
import sys

import built_recipes
import pytest
import torch
from config_mistakes import KEYS, LEGAL, NAMES, RELATIONS, VALUES
from mmengine.config import Config
from mmengine.hooks import Hook
from recipe_table import every_recipe
from torch import nn

from mim_mm.engine.start import annotations, guard, launch
from mim_mm.engine.start.checks import resuming
from mim_mm.engine.start.checks.signatures import arguments_of
from mim_mm.registry import HOOKS, MODELS
from mim_mm.transfer import ChainError, datasets

MISTAKES = [*KEYS, *NAMES, *VALUES, *RELATIONS]


class Trained(Exception):
    """What would be trained was let through."""


@pytest.fixture
def start(tmp_path, monkeypatch, capsys):
    """``start(recipe, change, *more)``: what ``tools/train.py`` says of it; data and model are out of reach."""

    def trains(cfg, notes, args):
        raise Trained

    monkeypatch.setattr(guard, 'check_data_roots', lambda cfg: None)
    monkeypatch.setattr(annotations, 'check_annotations', lambda cfg, work_dir: None)
    monkeypatch.setattr(launch, '_train', trains)
    monkeypatch.setattr(launch.REQUEST, 'listen', lambda *_: None)

    def run(recipe, change, *more):
        options = []
        cfg = built_recipes.load(f'{recipe}.py')
        if change.startswith('--'):
            options = ['--cfg-options', *change[2:].split()]
        else:
            written = dict(OwnHead=OwnHead)  # as a config of the new style would import it
            exec(change, written)
            del written['__builtins__']
            cfg = Config(Config._merge_a_into_b(written, cfg.to_dict()), filename=cfg.filename)
        path = built_recipes.CONFIGS / f'{recipe}.py'
        try:
            with monkeypatch.context() as patch:  # the next recipe is read from its file
                patch.setattr(launch.Config, 'fromfile', lambda path: copy.deepcopy(cfg))
                launch.train_main([str(path), '--work-dir', str(tmp_path / 'work'), *options, *more])
        except Trained:
            return ''
        except SystemExit as stop:
            assert stop.code == 2
        return capsys.readouterr().err

    return run


def test_there_are_enough_of_them():
    assert len(MISTAKES) >= 79 and len({(r, c) for r, c, *_ in MISTAKES}) == len(MISTAKES)


@pytest.mark.parametrize('recipe, change, place, fix', MISTAKES, ids=[m[1][:50] for m in MISTAKES])
def test_a_mistake_is_refused_in_one_line_with_the_fix(recipe, change, place, fix, start, tmp_path):
    said = start(recipe, change)
    assert said.startswith('error: ') and said.count('\n') == 1, said or 'it would train'
    assert place in said and fix in said, said
    assert not (tmp_path / 'work').exists()


@pytest.mark.parametrize('recipe, change', LEGAL, ids=[case[1][:50] for case in LEGAL])
def test_what_is_legal_passes(recipe, change, start):
    assert start(recipe, change) == ''


@pytest.mark.parametrize('name', every_recipe())
def test_every_recipe_passes(name, start):
    if name.startswith('seg/'):
        pytest.importorskip('mmseg', reason='the extra [seg]')
    more = () if 'fsdp' not in name else ('--launcher', 'pytorch')
    assert start(name, 'own_variable = 1', *more) == ''


@HOOKS.register_module()
class OwnHook(Hook):
    def __init__(self, interval, ratio=2.0, **others): ...


@MODELS.register_module()
class OwnHead(nn.Module):
    """Its arguments mean what it likes: no range is known here, but the names are."""

    def __init__(self, in_channels, num_classes=0, std=0, blend=1.0):
        super().__init__()


OWN = "model = dict(head=dict(_delete_=True, type='mim_mm.OwnHead', {}))"


def test_own_classes_have_their_own_ranges(start):
    recipe = 'finetune/vitb_finetune_100e'
    assert start(recipe, OWN.format('in_channels=8, num_classes=0, std=0')) == ''
    assert start(recipe, "custom_hooks = [dict(type='mim_mm.OwnHook', interval=0, ratio=7, intervals=3)]") == ''
    assert "'blend'" in start(recipe, OWN.format('in_channels=8, blent=0.5'))
    assert "'mim_mm.OwnHead'" in start(recipe, OWN.format('in_channels=8').replace('OwnHead', 'OwnHeat'))
    assert 'without quotes' in start(recipe, OWN.format("in_channels=8, blend='0.5'"))


def test_a_class_itself_may_stand_for_its_name(start):
    written = 'model = dict(head=dict(_delete_=True, type=OwnHead, {}=1))'
    assert start('finetune/vitb_finetune_100e', written.format('in_channels')) == ''
    assert "'in_channels'" in start('finetune/vitb_finetune_100e', written.format('in_channel'))


class Base:
    def __init__(self, width, *, depth=1): ...


class HandsOn(Base):
    def __init__(self, *args, rate=0.1, **kwargs):
        kwargs.setdefault('depth', 2)
        self.label = kwargs.pop('label', None)
        super().__init__(*args, **kwargs)


class GivesElsewhere(Base):
    def __init__(self, rate=0.1, **kwargs):
        super().__init__(1)
        self.inner = dict(**kwargs)


class NotItsOwn(HandsOn):
    pass


@pytest.mark.parametrize('kind, known, is_open', [
    (Base, {'width', 'depth'}, False),
    (HandsOn, {'width', 'depth', 'rate', 'label'}, False),
    (NotItsOwn, {'width', 'depth', 'rate', 'label'}, False),
    (GivesElsewhere, {'rate'}, True),
    (nn.Linear, {'in_features', 'out_features', 'bias', 'device', 'dtype'}, False),
    (shutil.rmtree, {'path', 'ignore_errors', 'onerror', 'dir_fd'}, False),
])  # fmt: skip
def test_arguments_are_followed_to_the_bases(kind, known, is_open):
    found = arguments_of(kind)
    assert set(found.known) - {'onexc'} == known and found.open == is_open


# ---------------------------------------------------------------- resuming


def checkpoint(path, epoch, iteration=0):
    torch.save(dict(state_dict={}, meta=dict(epoch=epoch, iter=iteration)), path)
    return str(path)


def test_past_the_end_is_refused_and_the_end_is_not(start, tmp_path):
    recipe = 'linear/vitb_linear_90e'
    for epoch, refused in ((89, False), (90, False), (91, True)):
        said = start(recipe, 'own = 1', '--resume', checkpoint(tmp_path / f'{epoch}.pth', epoch))
        assert bool(said) == refused
    assert said.count('\n') == 1 and 'has trained for 91 epochs' in said and 'train_cfg.max_epochs=90: raise' in said
    other = checkpoint(tmp_path / 'other.pth', epoch=1, iteration=184376)
    assert 'train_cfg.max_iters=184375' in start('coco/mask_rcnn_vitb_fpn_lsj_100e', 'own = 1', '--resume', other)


def test_two_places_to_start_from(start, tmp_path):
    recipe, path = 'emae/emae_vitb_800e', checkpoint(tmp_path / 'a.pth', 3)
    for change, resume, refused in [
        ('load_from = "b.pth"', path, True),
        ('--load_from=b.pth', path, True),
        ('load_from = "b.pth"', 'auto', False),
        ('load_from = "b.pth"', None, False),
        ('resume = True', path, False),
    ]:
        said = start(recipe, change, *(['--resume', resume] if resume else []))
        assert bool(said) == refused, (change, resume, said)
        assert not refused or ('load_from=b.pth' in said and '--resume auto' in said and said.count('\n') == 1)


def test_a_resumed_run_keeps_the_load_from_of_its_config():
    cfg = Config(dict(load_from='b.pth'))
    resuming.check_resume(cfg, 'latest', {})
    with pytest.raises(guard.ConfigError, match='load_from would not be read'):
        resuming.check_resume(cfg, 'latest', {'load_from': 'b.pth'})


def test_an_unreadable_checkpoint_is_left_to_its_reader(tmp_path):
    (tmp_path / 'a.pth').write_bytes(b'nothing')
    assert resuming.trained(resuming.stored_meta(str(tmp_path / 'a.pth'))) == (0, 0)


# ---------------------------------------------------------------- who else asks


def test_an_evaluation_and_the_chain_ask_too(monkeypatch, tmp_path, capsys):
    cfg = built_recipes.load('linear/vitb_linear_90e.py')
    cfg.val_evaluator.topkk = 5
    monkeypatch.setattr(guard, 'check_data_roots', lambda cfg: None)
    monkeypatch.setattr(annotations, 'check_annotations', lambda *_: None)
    monkeypatch.setattr(launch.Config, 'fromfile', lambda path: copy.deepcopy(cfg))
    with pytest.raises(SystemExit):
        launch.test_main([str(built_recipes.CONFIGS / 'linear/vitb_linear_90e.py'), 'none.pth'])
    said = capsys.readouterr().err
    assert said.count('\n') == 1 and 'val_evaluator.topkk=5' in said and "'topk'" in said
    del cfg.val_evaluator['topkk']
    sampler = cfg.train_dataloader.pop('sampler')
    with pytest.raises(ChainError, match='probe: train_dataloader.sampler is missing'):
        datasets.require(dict(probe=cfg))
    cfg.train_dataloader.sampler = sampler
    before = cfg.to_dict()
    datasets.require(dict(probe=cfg))
    assert cfg.to_dict() == before


def test_the_command_itself_says_one_line(tmp_path):
    """From outside: exit 2, no traceback, no work dir."""
    (tmp_path / 'train' / 'a').mkdir(parents=True)
    command = [sys.executable, 'tools/train.py', 'configs/emae/emae_vitb_800e.py', '--work-dir', str(tmp_path / 'w')]
    command += ['--data-root', str(tmp_path), '--cfg-options', 'model.decoder.embed_dim=256']
    done = subprocess.run(command, capture_output=True, text=True, cwd=built_recipes.CONFIGS.parent)
    errors = [line for line in done.stderr.splitlines() if line.startswith('error: ')]
    assert done.returncode == 2 and 'Traceback' not in done.stderr and not (tmp_path / 'w').exists()
    assert len(errors) == 1 and "model.decoder.embed_dim=256: MAEDecoder has no argument 'embed_dim'" in errors[0]
