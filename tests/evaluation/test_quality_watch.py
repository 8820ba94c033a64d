"""The watcher on work dirs: what it measures, what it skips, what it survives; its jobs are real processes."""

import functools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from tiny_run import ROOT
from watched import VIT, save, write_run

from mim_mm.evaluation.quality import quality_watch as room
from mim_mm.evaluation.quality.quality_log import add_quality, read_quality
from mim_mm.evaluation.quality.quality_watch import WatchCall, checkpoints, measure_checkpoint, watch
from mim_mm.report.figures_quality import draw_quality


@pytest.fixture
def run(tmp_path):
    return write_run(tmp_path)


@pytest.fixture
def in_process(monkeypatch):
    """The same jobs without a process each, counted; what they raise is told as a process would tell it."""
    started = []

    def job(call, checkpoint):
        started.append(checkpoint.name)
        try:
            row = measure_checkpoint(call, checkpoint)
        except (RuntimeError, ValueError) as error:
            return f'exit code 1: {error}'
        (checkpoint.parent / room.LOG).write_text(f'{checkpoint.name}: k-NN {row["knn_top1"]:.2f}\n')
        return None

    monkeypatch.setattr(room, 'run_job', job)
    return started


def finish(folder, done=True):
    (folder / 'progress.json').write_text(json.dumps(dict(finished=done)))


def test_measures_each_once_oldest_first_and_goes_on_where_it_stopped(run, in_process):
    save(run, 10), save(run, 9)
    call, said, drawn = WatchCall(str(run)), [], []
    assert watch(call, once=True, say=said.append, after=lambda: drawn.append(1)) == 0
    assert in_process == ['epoch_9.pth', 'epoch_10.pth'] and len(drawn) == 2 and said[0].startswith('epoch_9.pth: k-NN')
    rows = read_quality(run)
    assert [(r['iter'], r['epoch'], r['source'], r['file']['name']) for r in rows] == [
        (90, 9, 'watch', 'epoch_9.pth'), (100, 10, 'watch', 'epoch_10.pth'),
    ]  # fmt: skip
    assert watch(call, once=True, say=said.append) == 0 and len(in_process) == 2, 'nothing is measured twice'
    save(run, 10, seed=5)  # other weights under the same name: a run that was started afresh
    save(run, 2, 'iter_20.pth')
    assert watch(call, once=True, say=said.append) == 0 and in_process[2:] == ['epoch_10.pth', 'iter_20.pth']
    assert [(r['iter'], r['epoch']) for r in read_quality(run)] == [(20, None), (90, 9), (100, 10)]
    other = WatchCall(str(run), settings=dict(max_train_per_class=2))
    assert watch(other, once=True, say=said.append) == 0 and len(in_process) == 7, 'another protocol is another line'
    assert len(read_quality(run)) == 6 and len({r['protocol'] for r in read_quality(run)}) == 2


def test_half_written_files_and_others_are_left_alone(run, in_process):
    whole = save(run, 1)
    (run / 'epoch_2.pth').write_bytes(whole.read_bytes()[:-200])
    save(run, 3, '.epoch_3.pth.17.tmp'), save(run, 4, 'best_4.pth')
    assert [path.name for path in checkpoints(run)] == ['epoch_1.pth']
    assert watch(WatchCall(str(run)), once=True, say=lambda text: None) == 0 and in_process == ['epoch_1.pth']
    save(run, 2)
    watch(WatchCall(str(run)), once=True, say=lambda text: None)
    assert in_process == ['epoch_1.pth', 'epoch_2.pth'], 'measured once it is whole'


def test_what_the_hook_measured_is_not_measured_again(run, in_process):
    call = WatchCall(str(run))
    path = save(run, 1)
    protocol = room.prepare(call)[1].digest
    add_quality(run, dict(iter=10, protocol=protocol, source='hook', file=None, knn_top1=1.0, probe_top1=2.0))
    save(run, 2)
    watch(call, once=True, say=lambda text: None)
    assert in_process == ['epoch_2.pth'] and path.exists()


def test_waits_for_what_comes_and_ends_with_the_training(run, in_process, monkeypatch):
    """Each sleep is a step of a training that writes a checkpoint and then finishes."""
    steps = [lambda: save(run, 1), lambda: (save(run, 2), finish(run, False)), lambda: finish(run)]
    # mmengine sleeps a microsecond now and then.
    monkeypatch.setattr(room.time, 'sleep', lambda seconds: steps.pop(0)() if seconds == 7 else None)
    assert watch(WatchCall(str(run)), every=7, say=lambda text: None) == 0
    assert in_process == ['epoch_1.pth', 'epoch_2.pth'] and not steps


def test_a_bad_checkpoint_is_reported_once_and_the_rest_measured(run, in_process):
    bad = save(run, 1)
    content = torch.load(bad, weights_only=True)
    content['state_dict'] = {k: v * float('nan') for k, v in content['state_dict'].items()}
    torch.save(content, bad)
    torch.save(dict(state_dict={}), run / 'epoch_2.pth')  # no meta
    save(run, 3)
    finish(run)
    said = []
    assert watch(WatchCall(str(run)), say=said.append) == 1
    assert in_process == ['epoch_1.pth', 'epoch_2.pth', 'epoch_3.pth']
    assert 'not finite' in said[0] and 'no meta.iter' in said[1] and said[2].startswith('epoch_3.pth: k-NN')
    assert [row['iter'] for row in read_quality(run)] == [30]


def test_a_removed_checkpoint_is_no_failure(run, monkeypatch):
    path = save(run, 1)
    monkeypatch.setattr(room, 'run_job', lambda call, checkpoint: path.unlink() or 'gone')
    said = []
    assert watch(WatchCall(str(run)), once=True, say=said.append) == 0 and 'max_keep_ckpts' in said[0]


def test_what_is_missing_is_named(run, tmp_path):
    with pytest.raises(FileNotFoundError, match='is no folder'):
        watch(WatchCall(str(tmp_path / 'nowhere')))
    save(run, 1)
    (run / 'emae.py').write_text(f'model = dict(type="MAE", backbone={VIT!r})\n')
    with pytest.raises(ValueError, match='give --data DIR'):
        watch(WatchCall(str(run)), once=True)
    (run / 'emae.py').unlink()
    with pytest.raises(ValueError, match='give --config'):
        watch(WatchCall(str(run)), once=True)


def test_a_recipe_takes_the_place_of_the_runs_config(run, in_process, tmp_path):
    save(run, 1)
    recipe = tmp_path / 'linear.py'
    recipe.write_text(
        f'data_root = {str(tmp_path / "labelled")!r}\nmodel = dict(type="ImageClassifier", backbone={VIT!r})\n'
        'data_preprocessor = dict(mean=[1.0] * 3, std=[2.0] * 3)\n'
    )
    cfg, data = room.prepare(WatchCall(str(run), config=str(recipe)))
    assert data.preprocess.mean == (1.0,) * 3 and data.settings.probe['iters'] == 2
    assert data.digest != room.prepare(WatchCall(str(run)))[1].digest


# ---------------------------------------------------------------- the tool


def start(run, *words):
    env = dict(os.environ, OMP_NUM_THREADS='1', PYTHONPATH=f'{ROOT}{os.pathsep}{os.environ.get("PYTHONPATH", "")}')
    command = [sys.executable, str(ROOT / 'tools' / 'watch.py'), str(run), *words]
    # A shell starts jobs in its background, these tests perhaps, with Ctrl-C ignored, and children inherit that.
    listen = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env=env, stdout=pipe, stderr=pipe, text=True, preexec_fn=listen)


def test_the_tool_measures_and_draws(run):
    save(run, 1)
    tool = start(run, '--once')
    out, err = tool.communicate(timeout=240)
    assert tool.returncode == 0, err
    assert 'epoch_1.pth: k-NN' in out and (run / 'quality.png').read_bytes()[:8] == b'\x89PNG\r\n\x1a\n'
    assert [row['iter'] for row in read_quality(run)] == [10]


def test_ctrl_c_ends_the_job_too_and_leaves_nothing_half_written(run, tmp_path):
    save(run, 1)
    (run / 'quality.jsonl').write_text('{"iter": 5, "protocol": "x"}\n')
    tool = start(run, '--once')
    deadline = time.time() + 200
    while not (jobs := _jobs(tool.pid)) and time.time() < deadline:
        time.sleep(0.2)
    assert jobs, 'the job never started'
    for pid in jobs:
        os.kill(pid, signal.SIGSTOP)  # it stays in the middle of its work
    tool.send_signal(signal.SIGINT)
    time.sleep(1)
    for pid in jobs:
        os.kill(pid, signal.SIGCONT)  # and sees what it was sent meanwhile
    _, err = tool.communicate(timeout=60)
    assert tool.returncode == 130 and 'what is measured stands' in err and 'Traceback' not in err
    assert not any(os.path.exists(f'/proc/{pid}') for pid in jobs)
    assert (run / 'quality.jsonl').read_text() == '{"iter": 5, "protocol": "x"}\n'
    assert not list(run.glob('.*')) and not (run / 'quality.png').exists()


def _jobs(pid):
    """Measuring processes that ``pid`` has started; imports start others for a moment."""
    try:
        children = Path(f'/proc/{pid}/task/{pid}/children').read_text().split()
        return [int(child) for child in children if b'job_main' in Path(f'/proc/{child}/cmdline').read_bytes()]
    except FileNotFoundError:
        return []


def test_the_curve_is_drawn_from_what_the_file_says(tmp_path, monkeypatch):
    from mim_mm.report import figures_quality as figures

    seen = []
    monkeypatch.setattr(figures, 'save_figure', lambda figure, path: seen.append(figure) or path)
    assert draw_quality(tmp_path, tmp_path / 'q.png') is None
    for done, epoch, knn, probe in ((20, 2.0, 30.0, 40.0), (0, 0.0, 10.0, 12.0)):
        add_quality(tmp_path, dict(iter=done, epoch=epoch, protocol='p', knn_top1=knn, probe_top1=probe))
    with open(tmp_path / 'quality.jsonl', 'a') as file:
        file.write('{"iter": 30, "cut')
    draw_quality(tmp_path, tmp_path / 'q.png')
    (axis,) = seen[0].axes
    lines = {line.get_label(): line.get_xydata().tolist() for line in axis.lines}
    assert lines == {'best of the linear heads': [[0, 12], [2, 40]], 'k-NN': [[0, 10], [2, 30]]}
    assert axis.get_xlabel() == 'epoch'
    add_quality(tmp_path, dict(iter=30, epoch=None, protocol='other', knn_top1=1.0, probe_top1=2.0))
    draw_quality(tmp_path, tmp_path / 'q.png')
    assert seen[1].axes[0].get_xlabel() == 'iteration' and len(seen[1].axes[0].lines) == 4
