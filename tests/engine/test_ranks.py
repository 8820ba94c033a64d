"""Who is lost is named, in words that say what to do; ranks that differ are refused."""

import errno
import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from mmengine.config import Config
from processes import join, spawn, store
from torch.utils.data import DataLoader

from mim_mm.compat import torchrun
from mim_mm.data import workers
from mim_mm.engine.start import agreement, ending
from mim_mm.engine.stop import ranks
from mim_mm.engine.stop.ranks import RankWatch, timeout_of


class Store(dict):
    def check(self, keys):
        return all(key in self for key in keys)

    get, set = dict.__getitem__, dict.__setitem__


def told(rank, beat=1, step=5, doing='in the step', failed=''):
    return json.dumps(dict(beat=beat, step=step, doing=doing, failed=failed, where='x.py:1 f', host=f'h{rank}', pid=7))


@pytest.fixture
def watch(monkeypatch):
    """The watch of rank 0 of three, in step 5; while it looks, the others beat as ``beats`` says."""
    watch = RankWatch()
    watch._store = Store({f'mim_mm/rank/{rank}': told(rank) for rank in range(3)})
    watch.at(5, 'in the step')
    monkeypatch.setattr(ranks, 'get_world_size', lambda: 3)
    monkeypatch.setattr(ranks, 'get_rank', lambda: 0)
    watch.later = {rank: told(rank, beat=2) for rank in range(3)}

    def sleep(_):
        watch._store.update({f'mim_mm/rank/{rank}': text for rank, text in watch.later.items()})

    monkeypatch.setattr(ranks.time, 'sleep', sleep)
    return watch


@pytest.mark.parametrize('later, words', [
    ({1: told(1, beat=1)}, 'rank 1 (host h1, pid 7), last step 5, which is dead or stopped'),
    ({2: told(2, beat=2, step=4)}, 'rank 2 (host h2, pid 7), last step 4, in the step at x.py:1 f'),
    ({1: told(1, beat=2, doing='reading data')}, 'rank 1 (host h1, pid 7), last step 5, reading data at x.py:1 f'),
    ({2: told(2, beat=2, failed='ValueError: no')}, 'rank 2 (host h2, pid 7), last step 5, which failed: ValueError: no'),  # noqa: E501
    ({}, ''),
])  # fmt: skip
def test_the_lost_rank_is_found_by_what_all_said(watch, later, words):
    watch.later.update(later)
    assert watch.named(watch.suspects()) == words


def test_a_store_that_is_gone_names_the_rank_that_kept_it(watch, monkeypatch):
    watch._store.check = lambda keys: (_ for _ in ()).throw(RuntimeError('connection reset'))
    assert watch.suspects() == {}
    monkeypatch.setattr(ranks, 'get_rank', lambda: 2)
    assert (
        watch.named(watch.suspects()) == 'rank 0 or its launcher, which keeps the store of the job and does not answer'
    )  # noqa: E501


def test_the_timeout_is_the_configs():
    assert timeout_of(Config(dict(env_cfg=dict(dist_cfg=dict(timeout=7))))).total_seconds() == 7
    assert timeout_of(Config({})).total_seconds() == 1800
    from built_recipes import load
    from tiny_run import ROOT

    assert load(ROOT / 'configs/emae/emae_vitb_800e.py').env_cfg.dist_cfg.timeout == 1800


def test_ranks_that_differ_are_told_apart():
    first = {'host': 'a', 'training images': 10, 'code of mim_mm': 'x', 'config model': '1'}
    assert list(agreement.differences([first, dict(first, host='b')])) == []
    found = list(agreement.differences([first, first, dict(first, **{'host': 'b', 'training images': 9})]))
    assert found == ['training images: 10 on rank 0 (a), 9 on rank 2 (b)']


@pytest.mark.parametrize('error, words', [
    (torch.OutOfMemoryError('CUDA out of memory. Tried 2 GiB\nmore'), 'train_dataloader.batch_size=32.*accumulative.*with_cp'),  # noqa: E501
    (MemoryError(), 'fewer num_workers'),
    (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), 'machine has no memory left'),  # noqa: E501
    (OSError(errno.ENOMEM, 'Cannot allocate memory'), 'machine has no memory left'),
    (RuntimeError('DataLoader worker (pid 17) is killed by signal: Killed. '), 'data worker 17 .*memory of the machine'),  # noqa: E501
    (RuntimeError('DataLoader worker (pid(s) 17, 18) exited unexpectedly'), 'data worker 17, 18 exited unexpectedly'),
    (RuntimeError('DataLoader worker (pid 17) is killed by signal: Segmentation fault. '), 'data worker 17 .*num_workers=0'),  # noqa: E501
    (RuntimeError('DataLoader timed out after 1800 seconds'), 'no batch came.*train_dataloader.timeout'),
])  # fmt: skip
def test_what_the_machine_did_is_one_line(error, words):
    import re

    text = ending.explain(error, Config(dict(train_dataloader=dict(batch_size=64))))
    assert re.search(words, text) and '\n' not in text and '--resume goes on' in text


def test_other_errors_stay_what_they_are():
    assert ending.explain(ValueError('x')) is None and ending.explain(RuntimeError('shape mismatch')) is None
    error = ValueError('x')
    with pytest.raises(ValueError) as caught:
        ending.end_badly(error)
    assert caught.value is error
    with pytest.raises(SystemExit) as stop:
        ending.end_badly(KeyboardInterrupt())
    assert stop.value.code == 130


# ---- workers


class Parents(torch.utils.data.Dataset):
    """Whether the signals that stop are harmless in the worker that reads."""

    def __len__(self):
        return 2

    def __getitem__(self, index):
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2):
            os.kill(os.getpid(), number)
        time.sleep(0.1)
        return os.getpid()


@pytest.mark.process
def test_workers_start_with_the_signals_blocked_and_outlive_them():
    seen = []

    class Process(workers.ForkWorker):
        def run(self):
            seen.append(signal.pthread_sigmask(signal.SIG_BLOCK, []))
            os._exit(len(set(workers.STOPPING) & seen[0]))

    before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    child = Process()
    child.start()
    child.join(30)
    assert child.exitcode == len(workers.STOPPING), 'blocked before the first line of the child'
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == before
    loader = DataLoader(Parents(), batch_size=1, num_workers=1)
    workers.shield_workers(loader)
    assert loader.timeout == workers.WAIT_S and loader.multiprocessing_context.get_start_method() == 'fork'
    pids = [int(batch) for batch in loader]
    assert len(set(pids)) == 1 and pids[0] != os.getpid()


@pytest.mark.parametrize('method', ['fork', 'spawn', 'forkserver'])
def test_every_start_method_is_shielded(method):
    loader = DataLoader([0], num_workers=1, multiprocessing_context=method)
    workers.shield_workers(loader)
    process = loader.multiprocessing_context.Process
    assert issubclass(process, workers._Shielded) and process._start_method == method
    assert loader.multiprocessing_context.get_start_method() == method


# ---- several processes


def _lose(rank, port, folder):
    sys.stderr = open(f'{folder}/said{rank}', 'w')
    join(rank, port, timeout=timeout_of(dict(env_cfg=dict(dist_cfg=dict(timeout=60)))))
    ranks.BEAT_S = 0.2
    ranks.WATCH.start(60.0, 3)
    try:
        torch.distributed.all_reduce(torch.ones(1))
        time.sleep(0.5)
        if rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        torch.distributed.all_reduce(torch.ones(1))
    except BaseException as error:
        ending.end_badly(error)


@pytest.mark.process
def test_a_killed_rank_ends_the_other_which_names_it(tmp_path):
    with store() as port, pytest.raises(Exception, match='SIGKILL|exit code 1'):
        spawn(_lose, port, str(tmp_path))
    # The one that is left is ended by torch's launcher of processes, or by itself before.
    said = (tmp_path / 'said0').read_text()
    assert not said or 'lost rank 1 (host' in said and 'last step 3, which is dead or stopped' in said, said


SCRIPT = """
import os, signal, sys, time
def stop(number, frame):
    time.sleep(0.3)
    sys.exit({code})
signal.signal(signal.SIGTERM, stop)
signal.signal(signal.SIGINT, stop)
print('ready', flush=True)
if {own}:
    os.kill(os.getpid(), signal.SIGKILL) if os.environ['RANK'] == '1' else None
time.sleep(60)
"""


@pytest.mark.process
@pytest.mark.parametrize('code, sign, words', [
    (75, signal.SIGTERM, ''), (130, signal.SIGINT, ''), (9, None, 'rank 1 of this machine (.*) ended with SIGKILL'),
])  # fmt: skip
def test_torchrun_passes_signals_on_and_ends_with_the_ranks_code(tmp_path, code, sign, words):
    import re

    script = tmp_path / 'script.py'
    script.write_text(SCRIPT.format(code=code, own=sign is None))
    command = [sys.executable, '-m', 'mim_mm.compat.torchrun', '--standalone', '--nproc_per_node=2', str(script)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    child.stdout.readline(), sign and child.stdout.readline()
    if sign:
        os.killpg(child.pid, sign)
    _, said = child.communicate(timeout=60)
    assert child.returncode == (1 if sign is None else code), said
    assert 'Traceback' not in said and re.search(words, said)
    assert torchrun.children(child.pid) == []
