"""The chain and Slurm without a Slurm: what is asked for, read and written. tests/slurm/ has the real one."""

import dataclasses
import json
import os
import pickle
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from mim_mm import slurm_queue
from mim_mm.transfer import Call, ChainError, process, run_chain
from mim_mm.transfer.display import Display
from mim_mm.transfer.launch import Scripts
from mim_mm.transfer.slurm import scheduler as slurm
from mim_mm.transfer.slurm import slurm_job, slurm_submit
from mim_mm.transfer.slurm.scheduler import Resources

ROOT = Path(__file__).resolve().parents[2]


def resources(*items, stage='pretrain', gpus=8, fixed=False):
    options = slurm.read_options(['time=1-00:00:00', *items], ['pretrain', 'linear', 'report'])
    return slurm.resources(options, stage, gpus, fixed)


def test_options_of_all_stages_and_of_one():
    items = ['partition=gpu', 'cpus_per_task=8', 'pretrain.nodes=4', 'gpus_per_node=8', '--qos=high']
    items.append('report.partition=cpu')
    pretrain = resources(*items)
    assert (pretrain.nodes, pretrain.tasks_per_node, pretrain.gpus_per_node, pretrain.tasks) == (4, 8, 8, 32)
    expected = {'time': '1-00:00:00', 'partition': 'gpu', 'cpus-per-task': '8', 'qos': 'high'}
    assert pretrain.sbatch == expected
    linear = resources(*items, stage='linear')
    assert linear.nodes == 1 and linear.tasks == 8
    report = resources(*items, stage='report')
    assert report.tasks == 1 and report.gpus_per_node == 0 and report.sbatch['partition'] == 'cpu'


def test_devices_follow_from_gpus_where_nothing_else_is_said():
    assert resources(gpus=8).gpus_per_node == 8
    assert (resources('nodes=2', gpus=8).gpus_per_node, resources('nodes=2', gpus=8).tasks) == (4, 8)
    cpu = resources('ntasks_per_node=2', gpus=0)
    assert (cpu.gpus_per_node, cpu.tasks) == (0, 2)
    small = resources('nodes=4', 'gpus_per_node=8', gpus=4, fixed=True)  # the chain says gpus=4 for this stage
    assert (small.nodes, small.gpus_per_node, small.tasks) == (1, 4, 4)
    large = resources('gpus_per_node=8', gpus=16, fixed=True)
    assert (large.nodes, large.tasks) == (2, 16)


@pytest.mark.parametrize('items, gpus, message', [
    (['nodes'], 8, "'nodes' must be"),
    (['nodes=two'], 8, 'nodes=two must be a whole number'),
    (['nodes=0'], 8, 'nodes=0 must be a whole number, 1 or more'),
    (['nodes=3'], 8, '8 cannot be spread over nodes=3'),
    (['pretrian.nodes=3'], 8, "did you mean 'pretrain'"),
    (['signal=KILL@3'], 8, 'USR1@SECONDS'),
])  # fmt: skip
def test_options_that_mean_nothing(items, gpus, message):
    with pytest.raises(ChainError, match=message):
        resources(*items, gpus=gpus)


def test_a_time_limit_is_asked_for():
    with pytest.raises(ChainError, match='time=... is missing'):
        slurm.resources(slurm.read_options([], ['pretrain']), 'pretrain', 8)


@pytest.mark.parametrize('parents, when', [
    ([None], None),
    (['12'], 'afterok:12'),
    (['12', '12', '12'], 'afterok:12'),  # an array of seeds after one pretraining
    (['12_0', '12_1'], 'aftercorr:12'),  # each seed after its own
    (['12_1', '12_0'], 'afterok:12_1:12_0'),
    (['12_0', '12_1', '13'], 'afterok:12_0:12_1:13'),
    (['12_0'], 'afterok:12_0'),
    ([None, '12_1'], 'afterok:12_1'),
])  # fmt: skip
def test_dependencies(parents, when):
    assert slurm.dependency(parents) == when


def test_the_report_waits_for_all_of_them():
    assert slurm.after_all(['1', '2_0', '2_1', '1']) == 'afterany:1:2' and slurm.after_all([]) is None


def test_reading_the_queue():
    text = '12|12|RUNNING|None\n13_0|15|RUNNING|None\n13_1|13|PENDING|Dependency\n\nslurm_load_jobs error: x\n'
    jobs = slurm_queue.parse_queue(text)
    assert jobs['12'] == ('RUNNING', 'None') and jobs['13_0'] == jobs['15'] == ('RUNNING', 'None')
    assert jobs['13_1'] == ('PENDING', 'Dependency')
    assert '13' not in jobs, 'the number of a waiting element is that of its array'
    assert slurm_queue.parse_queue('') == {}
    assert slurm.parse_ended('CANCELLED by 0\n') == 'CANCELLED' and slurm.parse_ended('') == ''


def with_slurm(monkeypatch, folder, queue):
    """A squeue of our own on the PATH, which prints ``queue``; with None it fails as when slurmctld is down."""
    script = f'cat <<END\n{queue}\nEND\n' if queue is not None else 'echo down >&2; exit 1\n'
    (folder / 'bin').mkdir(exist_ok=True)
    (folder / 'bin' / 'squeue').write_text('#!/bin/sh\n' + script)
    (folder / 'bin' / 'squeue').chmod(0o755)
    monkeypatch.setenv('PATH', f'{folder}/bin{os.pathsep}{os.environ["PATH"]}')


def test_when_a_job_is_certainly_over(monkeypatch, tmp_path):
    with_slurm(monkeypatch, tmp_path, '12|12|RUNNING|None')
    assert slurm_queue.is_over('11') and not slurm_queue.is_over('12') and not slurm_queue.is_over(None)
    monkeypatch.setenv('SLURM_JOB_ID', '12')
    assert slurm_queue.is_over('12'), 'this very job, so an earlier life of it'
    with_slurm(monkeypatch, tmp_path, None)
    assert not slurm_queue.is_over('11'), 'nobody knows'


def test_a_lock_left_on_another_node_by_an_earlier_life_of_this_job(monkeypatch, tmp_path):
    with_slurm(monkeypatch, tmp_path, '12|12|RUNNING|None')
    path = tmp_path / 'transfer.pretrain.lock'
    path.write_text(json.dumps(dict(pid=1, started='x', host='node7', since='now', slurm_job='12')))
    with pytest.raises(ChainError, match='node7'):
        process.WorkDirLock(tmp_path, path.name).__enter__()
    monkeypatch.setenv('SLURM_JOB_ID', '12')
    with process.WorkDirLock(tmp_path, path.name):
        assert process.read_holder(path)['slurm_job'] == '12'
        with process.WorkDirLock(tmp_path, 'transfer.linear.lock'):  # stages of one chain side by side
            pass


def test_jobs_on_disk(tmp_path):
    assert slurm.read_jobs(tmp_path) == {}
    slurm.write_jobs(tmp_path, dict(pretrain=dict(job='12')))
    assert slurm.read_jobs(tmp_path) == dict(pretrain=dict(job='12'))
    (tmp_path / slurm.JOBS_FILE).write_text('{')
    with pytest.raises(ChainError, match='squeue --me'):
        slurm.read_jobs(tmp_path)


def test_a_local_call_is_refused_while_jobs_are_queued(monkeypatch, tmp_path):
    slurm.write_jobs(tmp_path, dict(pretrain=dict(job='12'), linear=dict(job='13_1')))
    with_slurm(monkeypatch, tmp_path, '13_1|13|PENDING|Dependency')
    with pytest.raises(ChainError, match='are queued: 13_1.*scancel 13_1'):
        slurm_submit.refuse_queued(tmp_path)
    with_slurm(monkeypatch, tmp_path, '')
    slurm_submit.refuse_queued(tmp_path)
    with_slurm(monkeypatch, tmp_path, None)  # an error is no empty queue
    with pytest.raises(ChainError, match='squeue fails.*12, 13_1'):
        slurm_submit.refuse_queued(tmp_path)


def test_submitting_is_for_login_nodes(monkeypatch):
    monkeypatch.delenv('SLURM_JOB_ID', raising=False)
    assert slurm_submit.wanted('slurm', ['time=1']) and not slurm_submit.wanted(None, [])
    monkeypatch.setenv('SLURM_JOB_ID', '5')
    assert not slurm_submit.wanted('slurm', [])
    with pytest.raises(ChainError, match='is for --launcher slurm'):
        slurm_submit.wanted('none', ['time=1'])


def test_without_squeue_nothing_is_submitted(monkeypatch, tmp_path):
    with_slurm(monkeypatch, tmp_path, None)
    with pytest.raises(ChainError, match='squeue does not answer.*nothing was submitted'):
        slurm_submit.ask_queue()


def test_without_submitit_the_fix_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, 'submitit', None)
    with pytest.raises(ChainError, match='pip install submitit'):
        slurm_job.require_submitit()


def test_what_submitit_is_told():
    what = Resources(2, 8, 8, sbatch={'time': '60', 'partition': 'gpu'})
    told = slurm_job.parameters('emae-pretrain', what, 'afterok:12', count=1)
    assert (told['nodes'], told['ntasks_per_node'], told['gpus_per_node']) == (2, 8, 8)
    more = told['additional_parameters']
    assert more['signal'] == 'USR1@120' and more['requeue'] is True and more['time'] == '60'
    assert more['dependency'] == 'afterok:12' and more['kill-on-invalid-dep'] == 'yes'
    assert not told['use_srun'] and any(line.startswith('trap : USR1') for line in told['setup'])
    assert 'array_parallelism' not in told
    gres = Resources(1, 8, 8, array_parallelism=3, sbatch={'gres': 'gpu:a100:8'})
    told = slurm_job.parameters('x', gres, None, count=4)
    assert 'gpus_per_node' not in told and told['array_parallelism'] == 3
    assert 'dependency' not in told['additional_parameters']


def test_the_batch_script_that_comes_out_of_it(tmp_path):
    """Through submitit, as far as it goes without sbatch."""
    submitit = pytest.importorskip('submitit')
    what = Resources(2, 4, 4, sbatch={'time': '2-00:00:00', 'partition': 'gpu'})
    make = sys.modules[submitit.SlurmExecutor.__module__]._make_sbatch_string
    text = make('true', tmp_path, **slurm_job.parameters('n', what, 'aftercorr:7', count=2), map_count=2)
    lines = text.splitlines()
    for line in (
        '--array=0-1%2',
        '--dependency=aftercorr:7',
        '--gpus-per-node=4',
        '--nodes=2',
        '--ntasks-per-node=4',
        '--time=2-00:00:00',
        '--partition=gpu',
        '--requeue',
        '--signal=USR1@120',
        '--kill-on-invalid-dep=yes',
    ):
        assert f'#SBATCH {line}' in lines, text
    assert not any(line.startswith('srun') for line in lines)


def test_the_shell_of_the_job_outlives_the_warning(tmp_path):
    """What the setup lines are for: SIGUSR1 to the batch shell does not end it, and its status is the job's."""
    setup = slurm_job.parameters('x', Resources(), None, 1)['setup']
    script = '\n'.join(['#!/bin/bash', *setup, 'echo $PYTHONPATH', 'sleep 1', 'exit 3'])
    child = subprocess.Popen(['bash', '-c', script], stdout=subprocess.PIPE, text=True)
    child.stdout.readline()
    child.send_signal(10)
    assert child.wait(timeout=20) == 3


def parsed(command):
    """The call that ``tools/transfer.py`` makes of a command line for it."""
    assert command[:2] == [sys.executable, str(ROOT / 'tools' / 'transfer.py')]
    return runpy.run_path(command[1])['parse'](command[2:])


def test_a_job_travels_and_becomes_the_command_of_its_call(monkeypatch, capsys):
    options = dict(
        chain='/w/x.py', work_dir='/w', gpus=8, only=['linear'], cfg_options=['linear.lr=1e-3'], launcher='slurm',
        data_root=['imagenet=/d'], auto_scale_lr=True,
    )  # fmt: skip
    job = slurm_job.ChainJob(options, requeues=2, rerun=['linear'], grace_s=90.0)
    job = pickle.loads(pickle.dumps(job))
    started = []
    monkeypatch.setattr(os, 'execv', lambda program, command: started.append(command))
    for life in ('0', '1'):
        monkeypatch.setenv('SLURM_RESTART_COUNT', life)
        job()
    assert 'requeued 1x' in capsys.readouterr().out
    expected = Call(**options, as_job=True, requeues=2, grace_s=90.0)
    # --rerun holds for the first life: afterwards the run goes on from its checkpoint.
    assert parsed(started[0]) == dataclasses.replace(expected, rerun=['linear'])
    assert parsed(started[1]) == expected


def test_a_job_that_an_earlier_version_queued_still_starts():
    """Its pickle holds these fields; a requeue after an update calls it again."""
    job = slurm_job.ChainJob.__new__(slurm_job.ChainJob)
    fields = dict(call=dict(chain='x.py', work_dir='w', gpus=0, launcher='slurm'), as_job=False, rerun=[])
    vars(job).update(fields, requeues=50, grace_s=120.0)
    assert parsed(job.command(0)) == Call('x.py', work_dir='w', gpus=0, launcher='slurm', grace_s=120.0, requeues=50)


def test_a_stopped_job_requeues_within_its_limit(monkeypatch, capsys):
    monkeypatch.setattr(slurm, 'requeue', lambda: False)
    for life in ('0', '1', '2'):
        monkeypatch.setenv('SLURM_RESTART_COUNT', life)
        slurm_job.requeue(2, Display())
    said = capsys.readouterr().out
    assert said.count('requeueing') == 2 and 'not requeued: 2 times already' in said


# ---- a stage that is asked to stop


def test_a_stage_that_was_asked_to_stop_is_interrupted_and_goes_on(place, monkeypatch):
    stop = place.folder / 'stop'
    script = place.folder / 'train.py'
    script.write_text(
        'import json, os, pathlib, runpy, sys\n'
        "sys.argv[0] = 'train.py'\n"
        'try: runpy.run_path(os.environ["STAND_IN"], run_name="__main__")\n'
        'finally:\n'
        '    folder = pathlib.Path(sys.argv[sys.argv.index("--work-dir") + 1])\n'
        '    if folder.name == "linear" and pathlib.Path(os.environ["STOP"]).exists():\n'
        '        note = folder / "progress.json"\n'
        '        progress = dict(json.loads(note.read_text()), finished=False, stopped="SIGUSR1")\n'
        '        note.write_text(json.dumps(progress))\n'
        '        os._exit(75)\n'
    )
    from workplace import STAND_IN

    place.write(with_report=True, pretrain=place.stage('pretrain', init=None), linear=place.stage('linear'),
                finetune=place.stage('finetune'))  # fmt: skip
    stop.touch()
    monkeypatch.setenv('STAND_IN', str(STAND_IN))
    monkeypatch.setenv('STOP', str(stop))
    asked = []
    monkeypatch.setattr(slurm_job, 'requeue', lambda limit, display: asked.append(limit))
    call = Call(str(place.chain), work_dir=str(place.work), gpus=0)
    assert run_chain(dataclasses.replace(call, requeues=3), scripts=Scripts(script, script)) == 75
    assert asked == [3], 'in a Slurm job it goes back into the queue'
    record = place.record('linear')
    assert record['status'] == 'interrupted' and record['error'].startswith('stopped by SIGUSR1')
    assert record['exit_code'] == 75 and record['checkpoint'] == 'epoch_3.pth'
    assert not (place.work / 'finetune').exists(), 'nothing new starts when the time is up'
    assert not (place.work / 'report').exists()
    stop.unlink()
    assert run_chain(call, scripts=Scripts(script, script)) == 0
    assert [a['status'] for a in place.record('linear')['attempts']] == ['interrupted', 'done']
