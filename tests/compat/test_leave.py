"""The end of a job of two processes: done is done, also where something still holds the process group."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mim_mm.compat.leave import gloo_threads, leave

ROOT = Path(__file__).resolve().parents[2]
JOB = """
import atexit, sys, torch
import torch.distributed as dist
from mim_mm.compat.leave import gloo_threads, leave

dist.init_process_group('gloo')
held = [dist.group.WORLD] if sys.argv[1] == 'held' else []
work = dist.all_reduce(torch.ones(2), async_op=True)
work.wait()
atexit.register(lambda: print('exit functions ran'))
assert len(gloo_threads()) > 0
del work
leave({code})
print('threads', len(gloo_threads()))
raise SystemExit({code})
"""


@pytest.mark.parametrize('held, code', [('', 0), ('held', 75)])
def test_two_processes_end_with_their_own_code(tmp_path, held, code):
    (tmp_path / 'job.py').write_text(JOB.format(code=code))
    command = [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc_per_node=2']
    environment = {**os.environ, 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1'}
    done = subprocess.run(
        [*command, str(tmp_path / 'job.py'), held], env=environment, capture_output=True, text=True, timeout=120
    )
    # torchrun's own code is 1 for any failure; it says which code the processes had.
    assert done.returncode == (0 if code == 0 else 1), done.stderr[-2000:]
    assert code == 0 or f'exitcode  : {code}' in done.stderr or f'exitcode: {code}' in done.stderr
    assert 'SIGABRT' not in done.stderr
    assert 'exit functions ran' in done.stdout
    if not held and code == 0:
        assert done.stdout.count('threads 0') == 2


def test_one_process_has_nothing_to_leave():
    assert gloo_threads() == []
    assert leave() is None
