"""Sweeps: the grid, the configs written for each point, running and going on, PIMR and the figure."""

import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import cv2
import pytest
from mmengine.config import Config

from mim_mm.report.figures_sweep import draw_sweep, gains, read_sweep, sweep_table
from mim_mm.transfer import ChainError, load_chain
from mim_mm.transfer.display import Display
from mim_mm.transfer.sweep.grid import load_sweep, write_point
from mim_mm.transfer.sweep.sweep_run import SweepCall, chain_command, run_sweep

ROOT = Path(__file__).resolve().parents[2]

# A training script that takes its "accuracy" from what the pretraining config says, so that a test knows the curve.
STAND_IN = """
import argparse, ast, json, sys, time, zipfile
from pathlib import Path

def read(path):
    values = {}
    exec(Path(path).read_text(), values)
    merged = {}
    for base in values.pop('_base_', []):
        merged.update(read(base))
    for key, value in values.items():
        if isinstance(value, dict) and isinstance(merged.get(key), dict):
            old = merged[key] = dict(merged[key])
            for name, item in value.items():
                if isinstance(item, dict) and item.pop('_delete_', False):
                    old[name] = item
                else:
                    old[name] = item
        elif not key.startswith('__'):
            merged[key] = value
    return merged

parser = argparse.ArgumentParser()
parser.add_argument('config')
parser.add_argument('--work-dir', type=Path)
parser.add_argument('--seed', type=int)
parser.add_argument('--resume')
parser.add_argument('--cfg-options', nargs='*', default=[])
args = parser.parse_args()
cfg, parent = read(args.config), None
for option in args.cfg_options:
    key, _, value = option.partition('=')
    if key == 'init':
        parent = json.loads(zipfile.ZipFile(value).read('state'))
    else:
        *path, last = key.split('.')
        node = cfg
        for name in path:
            node = node.setdefault(name, {})
        node[last] = ast.literal_eval(value)
broken = Path(cfg.get('broken', 'nowhere'))
if broken.is_file() and cfg['model']['masker']['ratio'] == 0.6:
    sys.exit('RuntimeError: out of luck')
metrics = {}
if parent is None:
    state = dict(masker=cfg['model']['masker'])
else:
    state = dict(seed=args.seed)
    masker = parent['masker']
    metrics = {'accuracy/top1': {'A': 50.0, 'B': 55.0}[masker['type']] + 10 * masker['ratio'] + args.seed}
    folder = args.work_dir / 'log' / 'vis_data'
    folder.mkdir(parents=True, exist_ok=True)
    rows = [{'accuracy/top1': metrics['accuracy/top1'] - 5 + epoch, 'step': epoch} for epoch in (1, 5)]
    (folder / 'scalars.json').write_text(''.join(json.dumps(row) + chr(10) for row in rows))
checkpoint = args.work_dir / 'epoch_1.pth'
with zipfile.ZipFile(checkpoint, 'w') as file:
    file.writestr('state', json.dumps(state))
(args.work_dir / 'last_checkpoint').write_text(str(checkpoint.resolve()))
(args.work_dir / 'progress.json').write_text(json.dumps(dict(
    epoch=1, max_epochs=1, iter=1, max_iters=1, eta_s=0.0, elapsed_s=0.0, loss=1.0, train={}, metrics=metrics,
    checkpoint='epoch_1.pth', device='cpu', finished=True, updated=time.time())))
"""


class Workplace:
    """A chain of two stages on the stand-in, and sweeps over it."""

    def __init__(self, folder: Path):
        self.folder, self.work = folder, folder / 'work'
        self.script = folder / 'train.py'
        self.script.write_text(STAND_IN)
        model = dict(type='M', masker=dict(type='A', ratio=0.9, only_of_A=1))
        (folder / 'pretrain.py').write_text(f'model = {model!r}\nbroken = {str(folder / "broken")!r}\n')
        hooks = [dict(type='mim_mm.LoadPretrainedHook', checkpoint=None)]
        (folder / 'linear.py').write_text(f'lr = 0.1\ncustom_hooks = {hooks!r}\n')
        stages = dict(
            pretrain=dict(kind='pretrain', config=str(folder / 'pretrain.py')),
            linear=dict(kind='linear', config=str(folder / 'linear.py'), init='pretrain', seeds=[0, 2]),
        )
        (folder / 'chain.py').write_text(f'name = "tiny"\nstages = {stages!r}\n')

    def sweep(self, grid, **keys) -> str:
        path = self.folder / 'sweep.py'
        values = dict(chain=str(self.folder / 'chain.py'), grid=grid, **keys)
        path.write_text(''.join(f'{key} = {value!r}\n' for key, value in values.items()))
        return str(path)

    def command(self, chain, work_dir, call):
        """As chain_command, but the stages of the chain run the stand-in."""
        code = (
            'import sys; from mim_mm.transfer import Call, run_chain; from mim_mm.transfer.launch import Scripts; '
            f'sys.exit(run_chain(Call({str(chain)!r}, work_dir={str(work_dir)!r}, gpus=0), '
            f'scripts=Scripts({str(self.script)!r}, {str(self.script)!r})))'
        )
        return [sys.executable, '-c', code]

    def run(self, path, **options):
        stream = io.StringIO()
        call = SweepCall(path, gpus=0, work_dir=str(self.work), **options)
        code, _ = run_sweep(call, Display(stream), self.command, grace_s=20.0)
        return code, stream.getvalue()


@pytest.fixture
def place(tmp_path):
    return Workplace(tmp_path)


GRID = {
    'ratio': [0.6, 0.5],
    'pretrain.model.masker': {'a': dict(type='A', ratio='{ratio}'), 'b': dict(type='B', ratio='{ratio}', odd=[1])},
}


def test_gains_by_hand():
    rows = gains([(0.75, 64.0), (0.5, 60.0), (0.6, 61.5), (0.9, 59.0)])
    assert [row[:2] for row in rows] == [(0.5, 60.0), (0.6, 61.5), (0.75, 64.0), (0.9, 59.0)]
    assert [row[2] for row in rows] == [None, 1.5, 2.5, -5.0], 'over the next lower ratio'
    assert [row[3] for row in rows] == [None, 1.5, 4.0, -1.0], 'over the lowest ratio'
    assert gains([]) == []
    with pytest.raises(ValueError, match='occurs twice'):
        gains([(0.5, 1.0), (0.5, 2.0)])


def test_the_grid_is_every_combination_with_variables_filled_in(place):
    sweep = load_sweep(place.sweep(GRID, options={'linear.lr': 0.2}))
    assert sweep.axes == ('ratio', 'masker') and sweep.x == 'ratio'
    assert [p.values for p in sweep.points] == [dict(ratio=r, masker=m) for r in (0.6, 0.5) for m in ('a', 'b')]
    assert [p.name for p in sweep.points] == [f'ratio-{r}_masker-{m}' for r in (0.6, 0.5) for m in 'ab']
    assert sweep.points[1].settings == {
        'linear.lr': 0.2, 'pretrain.model.masker': dict(type='B', ratio=0.6, odd=[1])
    }  # fmt: skip


def test_axes_get_the_shortest_names_that_differ(place):
    path = place.sweep({'pretrain.model.masker.ratio': [0.5], 'linear.model.ratio': [1, 2], 'linear.lr': [0.1]})
    sweep = load_sweep(path)
    assert sweep.axes == ('masker.ratio', 'model.ratio', 'lr')
    assert sweep.x == 'masker.ratio', 'a mask ratio goes before other numbers'
    nested = load_sweep(place.sweep({'pretrain.ratio': [0.5], 'ratio': [1], 'linear.k': ['{ratio}']}))
    assert len(set(nested.axes)) == 3


@pytest.mark.parametrize(
    'grid, keys, message',
    [
        ({}, {}, 'grid={} must be a dict'),
        ({'pretrain.lr': [0.1]}, dict(jobs=2), "unknown key 'jobs'"),
        ({'pretrian.lr': [0.1]}, {}, "unknown stage 'pretrian'; did you mean 'pretrain'"),
        ({'pretrain.lr': []}, {}, 'at least one and no name twice'),
        ({'pretrain.lr': 0.1}, {}, 'give a list of values'),
        ({'ratio': [0.5], 'pretrain.lr': [1]}, {}, "nothing reads 'ratio'"),
        ({'pretrain.lr': ['{ratoi}']}, {}, "unknown variable 'ratoi'"),
        ({'pretrain.m': [dict(type='A', k=1), dict(type='A', k=2)]}, {}, 'give a dict of label -> value'),
        ({'pretrain.lr': [0.1]}, dict(x='ratio'), "unknown axis 'ratio'"),
    ],
)
def test_what_cannot_be_swept_is_refused(place, grid, keys, message):
    with pytest.raises(ChainError) as error:
        load_sweep(place.sweep(grid, **keys))
    assert message in str(error.value)


def test_a_dict_replaces_what_stood_there_and_the_rest_are_options(place):
    grid = {'pretrain.model.masker': {'b': dict(type='B', ratio=0.5)}, 'pretrain.model.new': {'n': dict(c=1)}}
    sweep = load_sweep(place.sweep({**grid, 'linear.lr': [0.3]}), place.work)
    chain = load_chain(write_point(sweep, sweep.points[0]))
    config = Config.fromfile(chain['pretrain'].config)
    assert config.model.to_dict() == dict(type='M', masker=dict(type='B', ratio=0.5), new=dict(c=1))
    assert chain['linear-s2'].config == place.folder / 'linear.py' and chain['linear-s2'].options == {'lr': 0.3}
    sweep = load_sweep(place.sweep({'pretrain.hooks.0': {'n': dict(c=1)}}), place.work)
    with pytest.raises(ChainError, match='no index of a list'):
        write_point(sweep, sweep.points[0])


def test_a_recipe_of_the_repository_takes_another_masker(place):
    chain = ROOT / 'configs' / 'chains' / 'emae_vitb_300e.py'
    path = place.folder / 'real.py'
    grid = {'pretrain.model.masker': [dict(type='RandomMasking', ratio=0.6)]}
    path.write_text(f'chain = {str(chain)!r}\ngrid = {grid!r}\n')
    sweep = load_sweep(path, place.work)
    written = load_chain(write_point(sweep, sweep.points[0]))
    assert Config.fromfile(written['pretrain'].config).model.masker.to_dict() == dict(type='RandomMasking', ratio=0.6)
    assert [s.kind for s in written.stages] == ['pretrain', 'probe', 'linear', 'finetune', 'coco', 'report']


def test_dry_run_writes_nothing(place):
    path = place.sweep(GRID)
    before = sorted(place.folder.rglob('*'))
    code, said = place.run(path, dry_run=True)
    assert code == 0 and said.count('ratio-0.6_masker-a') >= 1 and 'sys.exit(run_chain' in said
    assert sorted(place.folder.rglob('*')) == before
    words = chain_command(Path('c.py'), Path('w'), SweepCall('s', gpus=4, data_root=['imagenet=/d'], launcher='slurm'))
    assert words[2:] == ['c.py', '--work-dir', 'w', '--gpus', '4', '--data-root', 'imagenet=/d', '--launcher', 'slurm']
    with pytest.raises(ChainError, match="unknown point 'ratio-0.7'"):
        place.run(path, only=['ratio-0.7'])
    with pytest.raises(ChainError, match='--jobs 0'):
        place.run(path, jobs=0)


@pytest.mark.slow
def test_runs_fails_goes_on_and_draws(place):
    path = place.sweep(GRID)
    (place.folder / 'broken').write_text('')
    code, said = place.run(path, jobs=2)
    assert code == 1 and said.count('FAILED after') == 2 and 'out of luck' in said
    record = lambda point, stage: json.loads((place.work / point / stage / 'run.json').read_text())  # noqa: E731
    assert record('ratio-0.6_masker-a', 'pretrain')['status'] == 'failed'
    done = record('ratio-0.5_masker-b', 'linear-s2')
    assert done['status'] == 'done' and done['metrics'] == {'accuracy/top1': 55 + 10 * 0.5 + 2}
    statuses = {p['name']: p['status'] for p in json.loads((place.work / 'sweep.json').read_text())['points']}
    assert set(statuses.values()) == {'done', 'failed'} and statuses['ratio-0.6_masker-b'] == 'failed'

    (place.folder / 'broken').unlink()
    finished = place.work / 'ratio-0.5_masker-b' / 'pretrain' / 'epoch_1.pth'
    before = finished.stat().st_mtime_ns
    code, _ = place.run(path)
    assert code == 0 and finished.stat().st_mtime_ns == before, 'what was done is not run again'

    sweep = read_sweep(place.work)
    found = {(r['values']['masker'], r['values']['ratio']): r for r in sweep['results']}
    # mean over seeds 0 and 2: base + 10 * ratio + 1
    assert {key: r['value'] for key, r in found.items()} == {
        ('a', 0.6): 57.0, ('a', 0.5): 56.0, ('b', 0.6): 62.0, ('b', 0.5): 61.0
    }  # fmt: skip
    assert found['a', 0.5]['seeds'] == 2 and found['a', 0.5]['scatter'] == pytest.approx(2**0.5)
    assert found['b', 0.6]['curve'] == ([1, 5], [58.0, 62.0])
    table = sweep_table(sweep)
    assert '| b | 0.6 | 62.00 ± 1.41 | 2 | +1.00 | +1.00 |' in table and 'our reading' in table
    figure, page = draw_sweep(place.work)
    picture = cv2.imread(str(figure))
    assert picture.shape[1] > 3 * picture.shape[0] and picture.std() > 5
    assert page.read_text() == table

    command = [sys.executable, str(ROOT / 'tools' / 'sweep.py'), path, '--work-dir', str(place.work), '--plot']
    figure.unlink()
    env = dict(os.environ, PYTHONPATH=str(ROOT))
    plotted = subprocess.run(command, capture_output=True, text=True, env=env)
    assert plotted.returncode == 0 and figure.is_file(), plotted.stderr


def test_a_sweep_without_results_says_so(place):
    sweep = load_sweep(place.sweep(GRID), place.work)
    with pytest.raises(FileNotFoundError, match='sweep.json is not there'):
        draw_sweep(place.work)
    place.work.mkdir()
    sweep.write_summary({})
    figure, page = draw_sweep(place.work)
    assert figure is None and '4 not run' in page.read_text()


def test_points_that_a_call_leaves_alone_stand_as_they_stood(place):
    sweep = load_sweep(place.sweep({'linear.lr': [0.1, 0.2, 0.3]}), place.work)

    def statuses():
        return [p['status'] for p in json.loads((place.work / 'sweep.json').read_text())['points']]

    place.work.mkdir()
    sweep.write_summary({'lr-0.1': 'done', 'lr-0.2': 'running'})
    sweep.write_summary({'lr-0.3': 'running'})
    assert statuses() == ['done', 'interrupted', 'running']


def test_a_signal_stops_the_chains_and_says_so(place):
    path = place.sweep({'linear.lr': [0.1, 0.2]})
    place.command = lambda chain, work_dir, call: [sys.executable, '-c', 'import time; time.sleep(100)']
    summary = place.work / 'sweep.json'

    def stop():
        while not (summary.is_file() and 'running' in summary.read_text()):
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=stop, daemon=True).start()
    begun = time.monotonic()
    code, said = place.run(path)
    assert code == 128 + signal.SIGTERM and time.monotonic() - begun < 60 and '[lr-0.1] stopping' in said
    statuses = [point['status'] for point in json.loads(summary.read_text())['points']]
    assert statuses == ['interrupted', 'not run']
