"""Killed, stopped, called twice, left alone: no run is lost, and no two processes write into one folder."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest
from workplace import wait_for

from mim_mm import locks
from mim_mm.transfer import ChainError, process
from mim_mm.transfer.process import WorkDirLock


def running(place, stage, epoch=1):
    """The stage's process, once it has saved a checkpoint of that epoch."""

    def look():
        if (place.work / stage / f'epoch_{epoch}.pth').exists():
            return place.record(stage)['process']

    return wait_for(look, f'{stage} at epoch {epoch}')


@pytest.fixture
def slow(place):
    """A chain whose linear stage takes a few seconds, and whatever it starts gone in the end."""
    place.config('linear', epochs=8, epoch_s=0.2)
    place.write(pretrain=place.stage('pretrain', init=None), linear=place.stage('linear'))
    place.started = []
    yield place
    for pid in place.started:
        process.stop_group(pid, grace_s=0.0)


def kill_chain(place, child) -> dict:
    """SIGKILL for transfer.py in the middle of linear; its stage stays alive."""
    left = running(place, 'linear', epoch=2)
    place.started.append(left['pid'])
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    return left


def test_kill_9_of_chain_and_stage_then_resume(slow):
    left = kill_chain(slow, slow.start())
    os.killpg(left['pid'], signal.SIGKILL)
    wait_for(lambda: not process.group_members(left['pid']), 'the stage to die')
    assert slow.record('linear')['status'] == 'running', 'nobody was there to write anything else'
    pretrain = (slow.work / 'pretrain' / 'run.json').read_bytes()
    code, said = slow.run()
    assert code == 0 and 'cut off; goes on from epoch_' in said
    assert (slow.work / 'pretrain' / 'run.json').read_bytes() == pretrain
    first, second = slow.record('linear')['attempts']
    assert first['status'] == 'cut off' and second['status'] == 'done'
    resumed = int(second['resumed_from'][len('epoch_') : -len('.pth')])
    assert resumed >= 2 and f'start at epoch {resumed},' in slow.log('linear')


def test_a_stage_that_outlived_its_chain_is_waited_for(slow):
    left = kill_chain(slow, slow.start())
    assert process.leader_alive(left)
    code, said = slow.run()
    assert code == 0 and f'still running as pid {left["pid"]}' in said
    record = slow.record('linear')
    assert record['status'] == 'done' and len(record['attempts']) == 1 and record['metrics']
    assert slow.log('linear').count('start at epoch') == 1, 'no second process was started'


def test_a_stage_that_outlived_its_chain_and_is_out_of_date_is_refused(slow):
    left = kill_chain(slow, slow.start())
    with pytest.raises(ChainError) as error:
        slow.run(cfg_options=['linear.lr=9.0'])
    assert 'lr: 0.1 -> 9.0' in str(error.value) and f'kill -TERM -- -{left["pid"]}' in str(error.value)
    assert process.leader_alive(left), 'it is left alone'


@pytest.mark.parametrize('sign, code', [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_stopped_politely(slow, sign, code):
    child = slow.start()
    stage = running(slow, 'linear', epoch=2)
    child.send_signal(sign)
    said, _ = child.communicate(timeout=30)
    assert child.returncode == code, said
    assert f'{sign.name}: stopping linear' in said
    record = slow.record('linear')
    assert record['status'] == 'interrupted' and sign.name in record['error'] and record['process'] is None
    assert not process.group_members(stage['pid'])
    assert json.loads((slow.work / 'pretrain' / 'run.json').read_text())['status'] == 'done'
    code, said = slow.run()
    assert code == 0 and 'interrupted; goes on from epoch_' in said


def test_two_calls_at_once(slow):
    child = slow.start()
    slow.started.append(running(slow, 'linear')['pid'])
    with pytest.raises(ChainError, match=f'pid {child.pid} on {socket.gethostname()}'):
        slow.run()
    slow.run(dry_run=True)  # looking is allowed
    child.terminate()
    child.communicate(timeout=30)


def test_lock_of_a_dead_holder_is_taken_over(tmp_path):
    script = (
        'import sys, os, signal; from pathlib import Path; from mim_mm.transfer.process import WorkDirLock\n'
        'lock = WorkDirLock(Path(sys.argv[1])).__enter__(); os.kill(os.getpid(), signal.SIGKILL)'
    )
    assert subprocess.run([sys.executable, '-c', script, str(tmp_path)]).returncode == -signal.SIGKILL
    assert process.read_holder(tmp_path / 'transfer.lock')['pid'] != os.getpid()
    with WorkDirLock(tmp_path):
        assert process.read_holder(tmp_path / 'transfer.lock')['pid'] == os.getpid()
    assert process.read_holder(tmp_path / 'transfer.lock') == {}


@pytest.mark.parametrize('silent_s, refused', [(5, True), (3600, False)])
def test_lock_of_another_machine_counts_while_its_heart_beats(tmp_path, silent_s, refused):
    path = tmp_path / 'transfer.lock'
    path.write_text(json.dumps(dict(pid=1, started='x', host='node7', since='now')))
    os.utime(path, (time.time() - silent_s,) * 2)
    if refused:
        with pytest.raises(ChainError, match='node7.*remove'):
            WorkDirLock(tmp_path).__enter__()
    else:
        with WorkDirLock(tmp_path):
            pass


def test_lock_where_the_file_system_has_none(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, 'fcntl', None)
    with WorkDirLock(tmp_path):
        with pytest.raises(ChainError, match=f'pid {os.getpid()}'):
            WorkDirLock(tmp_path).__enter__()
    (tmp_path / 'transfer.lock').write_text(json.dumps(dict(process.describe(os.getpid()), started='earlier')))
    with WorkDirLock(tmp_path):  # the pid is in use, but by a process that started at another time
        pass


def test_a_number_given_to_another_process_is_not_the_stage():
    here = process.describe(os.getpid())
    assert process.leader_alive(here)
    assert not process.leader_alive(dict(here, started='another time'))
    assert not process.leader_alive(dict(here, host='another machine'))
    assert not process.leader_alive(None)


def test_a_stage_on_another_machine_is_not_started_twice(slow):
    child = slow.start()
    left = kill_chain(slow, child)
    os.killpg(left['pid'], signal.SIGKILL)
    wait_for(lambda: not process.group_members(left['pid']), 'the stage to die')
    record = dict(slow.record('linear'), process=dict(left, host='node7'))
    (slow.work / 'linear' / 'run.json').write_text(json.dumps(record))
    with pytest.raises(ChainError, match='still running on node7'):
        slow.run()
    old = time.time() - 3600
    os.utime(slow.work / 'linear' / 'progress.json', (old, old))
    assert slow.run()[0] == 0


def test_group_is_stopped_with_its_members():
    script = (
        'import subprocess, sys, time\n'
        'subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]); time.sleep(60)'
    )
    leader = subprocess.Popen([sys.executable, '-c', script], start_new_session=True)
    wait_for(lambda: len(process.group_members(leader.pid)) == 2, 'the member')
    recorded = process.describe(leader.pid)
    leader.kill()
    leader.wait()
    assert not process.leader_alive(recorded) and len(process.orphans(recorded)) == 1
    process.stop_group_if_orphaned(recorded)
    assert process.group_members(leader.pid) == []
