"""The end of one process of several, so that a run that finished is not reported as one that failed.

A thread of gloo may still hold the work object of the last collective, with Python state in it, when the interpreter
is taken down; releasing it then aborts the process (SIGABRT, pytorch issue 190489), and the launcher calls the job
failed although every file is written. Destroying the process group alone is not enough while something still refers to
it, and one more barrier makes it likelier.
"""

from __future__ import annotations

import atexit
import gc
import os
import sys
from pathlib import Path

import torch.distributed as dist

GLOO = ('pt_gloo_', 'gloo_')  # how its threads are called


def leave(code: int = 0) -> None:
    """End the process group, and with it the process where a thread of gloo outlives the group.

    Call it last, after a run that ended in order, when nothing of the caller refers to the runner any more.

    Args:
        code: exit code of the process, if it has to end here; otherwise the caller goes on.
    """
    if not (dist.is_available() and dist.is_initialized()):
        return
    gc.collect()  # a runner is full of cycles, and its model wrapper holds the group
    dist.destroy_process_group()
    gc.collect()
    if gloo_threads():
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def gloo_threads() -> list[str]:
    """Names of the threads of gloo in this process; empty where the system does not tell."""
    names = []
    for path in Path('/proc/self/task').glob('*/comm'):
        try:
            names.append(path.read_text().strip())
        except OSError:  # ended meanwhile
            continue
    return [name for name in names if name.startswith(GLOO)]
