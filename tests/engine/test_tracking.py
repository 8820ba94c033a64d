"""The log on disk is always there and outlives a full disk; trackers can fail in every way without being noticed."""

import contextlib
import json
import logging
import time
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import VISBACKENDS
from mmengine.visualization import Visualizer
from mmengine.visualization.vis_backend import BaseVisBackend

from mim_mm import files
from mim_mm.engine.hooks import tracking
from mim_mm.engine.hooks.tracking import (
    LineVisBackend,
    SafeVisBackend,
    add_trackers,
    log_lines_may_fail,
    make_trackers_safe,
)
from mim_mm.report.collect import read_scalars


@VISBACKENDS.register_module()
class Failing(BaseVisBackend):
    """``how``: what it raises, or seconds that each call takes."""

    calls = []

    def __init__(self, save_dir=None, how=None, at=''):
        super().__init__(save_dir)
        self.how, self.at = how, at
        self._do('__init__')

    experiment = _init_env = None

    def _do(self, name):
        type(self).calls.append(name)
        if name == self.at and isinstance(self.how, float):
            time.sleep(self.how)
        elif name == self.at:
            raise self.how('server away')

    def add_config(self, config, **kwargs):
        self._do('add_config')

    def add_scalars(self, scalar_dict, step=0, file_path=None, **kwargs):
        self._do('add_scalars')


@pytest.fixture
def warnings_said(monkeypatch):
    said, Failing.calls[:] = [], []
    monkeypatch.setattr(tracking, 'print_log', lambda text, logger=None, level=logging.INFO: said.append((level, text)))
    return lambda: [text for level, text in said if level == logging.WARNING]


def visualizer(tmp_path, *backends):
    cfg = Config(dict(visualizer=dict(type='Visualizer', vis_backends=list(backends))))
    make_trackers_safe(cfg)
    options = {key: value for key, value in cfg.visualizer.items() if key != 'type'}
    return Visualizer(name=f'test-{time.monotonic()}', save_dir=str(tmp_path), **options)


def test_every_config_gets_the_log_on_disk_and_safe_trackers():
    for given in (None, dict(type='Visualizer'), dict(type='Visualizer', vis_backends=dict(type='LocalVisBackend'))):
        cfg = Config(dict(visualizer=given) if given else {})
        make_trackers_safe(cfg)
        assert cfg.visualizer.vis_backends == [dict(type='mim_mm.LineVisBackend', name='LocalVisBackend')]
    cfg = Config(dict(visualizer=dict(type='DetLocalVisualizer', vis_backends=[dict(type='WandbVisBackend', a=1)])))
    make_trackers_safe(cfg)
    once = cfg.visualizer.to_dict()
    wrapped = dict(type='mim_mm.SafeVisBackend', name='WandbVisBackend', backend=dict(type='WandbVisBackend', a=1))
    assert once['type'] == 'DetLocalVisualizer' and once['vis_backends'][1:] == [wrapped]
    make_trackers_safe(cfg)
    assert cfg.visualizer.to_dict() == once


def test_trackers_by_name_are_grouped_as_the_work_dir_lies(tmp_path, monkeypatch):
    monkeypatch.delenv('MLFLOW_TRACKING_URI', raising=False)
    own = dict(type='WandbVisBackend', init_kwargs=dict(project='mine'))
    cfg = Config(
        dict(work_dir=str(tmp_path / 'chain' / 'linear'), visualizer=dict(type='Visualizer', vis_backends=own))
    )
    add_trackers(cfg, ['mlflow', 'wandb', 'tensorboard', 'mlflow'])
    place = (tmp_path / 'chain' / 'mlruns').as_uri()
    assert [dict(backend) for backend in cfg.visualizer.vis_backends] == [
        own, dict(type='MLflowVisBackend', exp_name='chain', run_name='linear', tracking_uri=place),
        dict(type='TensorboardVisBackend'),
    ]  # fmt: skip
    cfg = Config(dict(work_dir=str(tmp_path)))
    add_trackers(cfg, [])
    assert 'visualizer' not in cfg


def test_tensorboard_gets_what_the_log_gets(tmp_path):
    events = pytest.importorskip('tensorboard.backend.event_processing.event_accumulator')
    cfg = Config(dict(work_dir=str(tmp_path)))
    add_trackers(cfg, ['tensorboard'])
    seen = visualizer(tmp_path, *cfg.visualizer.vis_backends)
    for step in (1, 2):
        seen.add_scalars(dict(loss=1.0 / step), step=step)
    seen.close()
    found = events.EventAccumulator(str(tmp_path))
    for path in tmp_path.rglob('events.out.tfevents.*'):
        found = events.EventAccumulator(str(path))
        found.Reload()
    assert [(point.step, point.value) for point in found.Scalars('loss')] == [(1, 1.0), (2, 0.5)]


@pytest.mark.parametrize('how, at', [
    (ImportError, '__init__'), (OSError, 'add_config'), (SystemExit, 'add_config'), (ValueError, 'add_scalars'),
    (30.0, 'add_config'), (30.0, 'add_scalars'),
])  # fmt: skip
def test_a_tracker_that_fails_is_told_of_once_and_the_log_is_whole(tmp_path, monkeypatch, warnings_said, how, at):
    monkeypatch.setattr(tracking, 'ANSWER_S', 0.2)
    monkeypatch.setattr(tracking, 'CLOSE_S', 0.2)
    monkeypatch.setattr(tracking, 'WAITING', 3)
    shown = visualizer(tmp_path, dict(type='Failing', how=how, at=at))
    shown.add_config(Config(dict(a=1)))
    for step in range(1, 9):
        shown.add_scalars(dict(loss=torch.tensor(0.5), lr=float('nan')), step=step)
    shown.close()
    assert len(warnings_said()) == 1 and warnings_said()[0].startswith('Failing ')
    rows = files.read_rows(tmp_path / 'vis_data/scalars.json')
    assert [row['step'] for row in rows] == list(range(1, 9)) and rows[0]['loss'] == 0.5


def test_a_working_tracker_gets_everything(tmp_path, warnings_said):
    shown = visualizer(tmp_path, dict(type='Failing'))
    shown.add_config(Config(dict(a=1)))
    shown.add_scalars(dict(loss=0.5), step=1)
    shown.close()
    assert Failing.calls == ['__init__', 'add_config', 'add_scalars'] and not warnings_said()
    assert isinstance(shown.get_backend('Failing'), SafeVisBackend)
    assert isinstance(shown.get_backend('LocalVisBackend'), LineVisBackend)


def test_a_full_disk_costs_lines_only_and_a_torn_one_is_ended(tmp_path, monkeypatch, warnings_said):
    shown = visualizer(tmp_path)
    shown.add_scalars(dict(loss=1.0), step=1)
    with monkeypatch.context() as patch:
        patch.setattr(files, 'append_row', lambda *_: (_ for _ in ()).throw(OSError(28, 'No space left on device')))
        shown.add_scalars(dict(loss=2.0), step=2)
        shown.add_scalars(dict(loss=3.0), step=3)
    assert len(warnings_said()) == 1 and 'No space left' in warnings_said()[0]
    path = tmp_path / 'vis_data/scalars.json'
    with open(path, 'a') as file:
        file.write('{"loss": 4.0, "st')
    shown.add_scalars(dict(loss=5.0), step=5)
    assert [row['step'] for row in files.read_rows(path)] == [1, 5]


def test_what_an_attempt_did_beyond_the_next_ones_start_was_lost(tmp_path):
    first, second = tmp_path / 'a.json', tmp_path / 'b.json'
    first.write_text(''.join(json.dumps(dict(loss=i / 10, step=i)) + '\n' for i in (10, 20, 30)) + '{"loss": 0.4')
    second.write_text('{"resumed_from": 20, "step": 20}\n{"loss": 9.0, "step": 25}\n')
    assert read_scalars([first, second]) == {'loss': ([10, 20, 25], [1.0, 2.0, 9.0])}


@pytest.mark.skipif(not Path('/dev/full').exists(), reason='no device here is always full')
def test_a_log_file_on_a_full_disk_is_said_once(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(logging, 'raiseExceptions', True)
    logger = logging.Logger('full')
    logger.addHandler(logging.FileHandler('/dev/full'))
    logger.addHandler(logging.FileHandler(tmp_path / 'log'))
    log_lines_may_fail(logger)
    for i in range(3):
        logger.warning('line %d', i)
    said = capsys.readouterr().err.splitlines()
    assert said == ['/dev/full takes no more lines ([Errno 28] No space left on device); training goes on']
    assert (tmp_path / 'log').read_text().splitlines() == ['line 0', 'line 1', 'line 2']
    for handler in logger.handlers:
        with contextlib.suppress(OSError):  # of the lines that wait for room
            handler.close()
