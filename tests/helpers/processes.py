"""Commands as a user types them, in processes of their own; and cheaper ways to what a start would only repeat."""

import contextlib
import io
import multiprocessing
import os
import runpy
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from tiny_run import ROOT

# Ranks are forked from a process that has done the imports: half a second of them each instead of five. That process
# is a fresh one: nothing of the tests, no thread and no device is in it.
multiprocessing.set_forkserver_preload(['mim_mm', 'mmengine.runner', 'mmpretrain.models'])


def run(command, **env):
    environment = {**os.environ, 'PYTHON': sys.executable, 'OMP_NUM_THREADS': '1', **env}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)


ANY_PORT = '0'  # of tools/*.sh: one that the system chooses and nobody gets in between


@contextlib.contextmanager
def store():
    """The port of a store that this process holds open, at which ranks meet that call :func:`join`."""
    held = torch.distributed.TCPStore('127.0.0.1', 0, is_master=True, wait_for_workers=False)
    yield str(held.port)


def join(rank, port, ranks=2, **options):
    """In a rank: a gloo group of all of them, through the :func:`store` of the process that started them."""
    os.environ.update(
        RANK=str(rank), WORLD_SIZE=str(ranks), LOCAL_RANK=str(rank), MASTER_ADDR='127.0.0.1', MASTER_PORT=port,
        TORCHELASTIC_USE_AGENT_STORE='True', TORCHELASTIC_RESTART_COUNT='0',
    )  # fmt: skip
    torch.set_num_threads(1)
    torch.distributed.init_process_group('gloo', **options)


def spawn(function, *args, ranks=2):
    """``function(rank, *args)``, from the top of a file, in processes side by side; an error of one is raised."""
    torch.multiprocessing.start_processes(function, args, nprocs=ranks, start_method='forkserver')


def in_process(tool, *words, cwd=ROOT, **env):
    """``python tools/TOOL WORDS`` without the start, which the test has seen once; the answer of ``subprocess.run``."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        patch.chdir(cwd)
        patch.setattr(sys, 'argv', [str(ROOT / 'tools' / tool), *map(str, words)])
        for name, value in env.items():
            patch.setenv(name, value)
        try:
            runpy.run_path(str(ROOT / 'tools' / tool), run_name='__main__')
        except SystemExit as stop:
            # a message goes to stderr and gives 1, as in a process
            code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
            if code and not isinstance(stop.code, int):
                print(stop.code, file=err)
    return SimpleNamespace(returncode=code, stdout=out.getvalue(), stderr=err.getvalue())
