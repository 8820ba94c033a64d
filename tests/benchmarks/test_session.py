"""The minutes of a lent device: what was measured stays, what failed is said, and the next call makes the rest."""

import os
import signal
import time
from pathlib import Path

import pytest
import torch
from processes import in_process
from torch import nn

from mim_mm.benchmarks import ceilings, session, session_rows, tool_run
from mim_mm.benchmarks.session import Row

ROOT = Path(__file__).resolve().parents[2]
TINY = """
_base_ = '{root}/configs/mae/mae_vits_300e.py'
model = dict(
    backbone=dict(
        arch=dict(_delete_=True, embed_dims=32, num_layers=2, num_heads=2, feedforward_channels=64),
        img_size=32, patch_size=8,
    ),
    decoder=dict(embed_dims=32, depth=1, num_heads=2),
)
_base_.train_dataloader.dataset.pipeline[1].scale = 32
"""


def row(name, answer, part=1):
    """A row that gives ``answer``, raises it, or does it."""

    def measure(sizes, folder, say):
        if isinstance(answer, Exception):
            raise answer
        return answer() if callable(answer) else dict(text=f'table of {name}', headline={name: answer})

    return Row(name, part, measure)


def run(rows, folder, seconds=60.0):
    return session.run(rows, None, folder, seconds, lambda text: None, dict(machine='here', commit='abc', command='x'))


def test_what_fails_is_said_and_tried_again_and_what_is_there_stays(tmp_path):
    calls = []
    rows = [row('a', 1.0), row('b', RuntimeError('out of memory\nand more')), row('c', lambda: calls.append(1) or {})]
    assert run(rows, tmp_path) == ['b']
    first = session.read(tmp_path)
    assert [(line['row'], line['ok']) for line in first] == [('a', True), ('b', False), ('c', True)]
    assert first[1]['error'] == 'RuntimeError: out of memory' and 'measure' in first[1]['where']
    assert run([rows[0], row('b', 2.0), rows[2]], tmp_path) == []
    assert [line['row'] for line in session.read(tmp_path)] == ['a', 'b', 'c', 'b'] and calls == [1]


@pytest.mark.skipif(not hasattr(signal, 'setitimer'), reason='this system has no alarms')
def test_the_clock_stops_a_row_and_begins_no_other(tmp_path):
    def patient():
        time.sleep(60)

    begin = time.monotonic()
    assert run([row('a', 1.0), row('b', patient), row('c', 1.0)], tmp_path, seconds=0.5) == ['b', 'c']
    assert time.monotonic() - begin < 30
    found = session.read(tmp_path)
    assert [line['row'] for line in found] == ['a', 'b'] and found[1]['error'].startswith('OutOfTime')
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


@pytest.mark.skipif(not hasattr(os, 'fork'), reason='this system cannot fork')
def test_killed_in_the_middle_the_rows_are_there(tmp_path):
    child = os.fork()
    if child == 0:
        try:
            run([row('a', 1.0), row('b', lambda: os.kill(os.getpid(), signal.SIGKILL))], tmp_path)
        finally:
            os._exit(0)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    assert [line['row'] for line in session.read(tmp_path)] == ['a']
    with open(tmp_path / session.ROWS, 'a') as file:
        file.write('{"row": "b", "ok": tr')  # a torn line
    assert run([row('a', 3.0), row('b', 2.0)], tmp_path) == []
    assert [(line['row'], line['figures']['headline']) for line in session.read(tmp_path)] == [
        ('a', {'a': 1.0}), ('b', {'b': 2.0}),
    ]  # fmt: skip


def test_figures_that_json_does_not_know_do_not_end_the_session(tmp_path):
    assert run([row('a', lambda: dict(text='', path=Path('x'), shape=torch.Size([2]))), row('b', 1.0)], tmp_path) == []
    assert session.read(tmp_path)[0]['figures'] == dict(text='', path='x', shape=[2])


def test_the_summary_puts_figures_beside_targets(tmp_path):
    rows = [row('a', 3000.0), row('b', 1.5), row('c', ValueError('no')), row('d', 1.0)]
    run(rows[:3], tmp_path)
    text = session.summary(rows, tmp_path, {'a': 2100.0, 'b': 2.0, 'z': 1.0})
    assert '| a | 3,000 | 2,100 | reached |' in text and '| b | 1.5 | 2 | missed |' in text
    assert '| z | not measured | 1 |  |' in text
    assert '**c**: ValueError: no' in text and '**d**: not begun' in text
    assert 'here; commit abc; `x`' in text and '\n## a (' in text and 'table of b' in text


def test_parts_and_names():
    rows = session_rows.ALL
    both = [session.wanted(rows, part, []) for part in (1, 2)]
    assert [r.name for part in both for r in part] == [r.name for r in rows] and all(both)
    assert [r.name for r in session.wanted(rows, 1, ['curve', 'doctor'])] == ['doctor', 'curve']
    with pytest.raises(ValueError, match='no row curves; there are doctor'):
        session.wanted(rows, None, ['curves'])


def test_limits_of_a_small_device():
    cpu, silent = torch.device('cpu'), lambda text: None
    first, second = ceilings.products([(64, 32, 16), (8, 8, 8)], cpu, torch.float32, 1, silent)
    assert first['name'] == '64 x 32 x 16' and first['tflops'] > 0 and second['name'] == '8 x 8 x 8'
    assert ceilings.copies(1 << 16, cpu, 1, silent)['gb_s'] > 0
    rows = ceilings.attention({'d': (2, 2, 5, 8)}, cpu, torch.float32, 1, silent)
    found = {r['name']: r for r in rows}
    assert found['d, plain']['ms'] > 0 and "d, torch's choice" in found
    assert 'error' in found['d, cudnn'], 'a backend that is not there has a row that says so'


class Scaled(nn.Module):
    """``loss = factor * w . images``, whose gradient is known."""

    def __init__(self, factor):
        super().__init__()
        self.w, self.factor = nn.Parameter(torch.ones(3)), factor

    def loss(self, images):
        return self.factor * (self.w * images).sum()


def contender_of(factor):
    model = Scaled(factor)
    return type('Contender', (), dict(model=model, loss=staticmethod(model.loss)))


def test_the_difference_of_two_gradients_by_hand():
    images = torch.tensor([1.0, 2.0, 2.0])
    assert session_rows.gradient_difference(contender_of(1.0), contender_of(1.0), images) == 0
    assert session_rows.gradient_difference(contender_of(1.0), contender_of(1.5), images) == pytest.approx(0.5)


def test_the_real_tool_is_run_and_its_loop_is_left_as_it_was(tmp_path):
    from mmengine.runner import loops

    before = loops.EpochBasedTrainLoop.run_iter
    config = tmp_path / 'tiny.py'
    config.write_text(TINY.format(root=ROOT))
    data = tool_run.class_folders(tmp_path / 'images', 12, val=2, distinct=4, side=48)
    assert len(list((data / 'train').rglob('*.jpg'))) == 12 and len(list((data / 'val').rglob('*.jpg'))) == 2
    found = tool_run.train(str(config), data, tmp_path / 'run', 6, 2, 0, {})
    assert found['iterations'] == 6 and found['images_s'] > 0 and found['waits'] is None
    assert loops.EpochBasedTrainLoop.run_iter is before
    with pytest.raises(RuntimeError, match='ended with 2'):
        tool_run.train(str(config), tmp_path / 'nothing', tmp_path / 'run', 6, 2, 0, {})
    assert loops.EpochBasedTrainLoop.run_iter is before


def test_the_tool_rehearses_some_rows(tmp_path):
    words = (tmp_path / 'out', '--rehearse', '--only', 'doctor', 'ceilings', 'decoding')
    done = in_process('gpu_bench.py', *words)
    assert done.returncode == 0, done.stderr
    lines = session.read(tmp_path / 'out')
    assert [line['row'] for line in lines] == ['doctor', 'ceilings', 'decoding'] and all(line['ok'] for line in lines)
    text = (tmp_path / 'out/summary.md').read_text()
    assert (
        text.startswith('# A rehearsal')
        and 'decoding on the device, images/s' in text
        and '**emae_vitb**: not begun' in text
    )
    assert 'ceilings' in in_process('gpu_bench.py', *words[:3], 'ceiling').stderr
    if not torch.cuda.is_available():
        none = in_process('gpu_bench.py', tmp_path / 'out')
        assert none.returncode == 2 and 'no CUDA device' in none.stderr and len(session.read(tmp_path / 'out')) == 3


def test_the_recipes_of_the_rows_exist():
    recipes = {*session_rows.SMALL.recipes, *session_rows.Sizes().recipes}
    assert [recipe for recipe in recipes if not Path(ROOT, recipe).is_file()] == []
