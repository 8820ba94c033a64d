"""Freed memory stays with the process, and its children return to the default."""

import subprocess
import sys

import pytest

SCRIPT = """
import os, resource
import torch
from mim_mm.engine.start.cpu_memory import keep_freed_memory

def faults(megabytes):
    '''Pages that the system hands out while so many MB are allocated, written and freed eight times.'''
    for _ in range(10):  # the heap takes some rounds to hold such a block in one piece
        torch.ones(megabytes << 18)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(8):
        torch.ones(megabytes << 18)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

torch.set_num_threads(1)
print(faults(64))
assert keep_freed_memory()
print(faults(64), flush=True)
child = os.fork()
if not child:
    print(faults(256), flush=True)  # more than the memory that it inherited
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
"""


@pytest.mark.skipif(sys.platform != 'linux', reason='glibc only')
def test_steps_get_the_same_memory_again():
    done = subprocess.run([sys.executable, '-c', SCRIPT], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    plain, kept, child = (int(line) for line in done.stdout.split()[-3:])
    # Each time again, or (nearly) never; a page has 4 KiB or more.
    assert plain >= 8 * 32
    assert kept < plain / 8
    assert child > plain
