"""The host memory in the log: pages written by hand, in this process and in children that share them or copy them."""

import mmap
import os
import types
from pathlib import Path

import pytest
from mmengine.hooks import LoggerHook
from mmengine.logging import MessageHub

from mim_mm.engine.hooks import host_memory
from mim_mm.engine.hooks.host_memory import HostMemory, children_of, held_by
from mim_mm.engine.start.runtime_info import DeferredRuntimeInfoHook

MIB = 2**20
NEAR = 12 * MIB  # of 64: what interpreter and allocator do beside
SIZE = 64 * MIB
pytestmark = pytest.mark.skipif(not Path('/proc/self/smaps_rollup').exists(), reason='Linux of 2017 or later')


def written(size: int) -> mmap.mmap:
    block = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    for place in range(0, size, mmap.PAGESIZE):
        block[place] = 1
    return block


class Child:
    """A forked process that does something, says so and stays until the block ends."""

    def __init__(self, do=lambda: None):
        self.do = do

    def __enter__(self):
        (come, gone), (self.stay, self.end) = os.pipe(), os.pipe()
        self.pid = os.fork()
        if not self.pid:
            os.close(self.end)
            self.do()
            os.write(gone, b'.')
            os.read(self.stay, 1)
            os._exit(0)
        assert os.read(come, 1) == b'.'
        return self

    def __exit__(self, *_):
        os.close(self.end)
        assert os.waitpid(self.pid, 0)[1] == 0


def now() -> int:
    return round(HostMemory(0).gib() * 2**30)


def test_pages_count_once_they_are_written():
    before = held_by('self')
    block = written(SIZE)
    assert abs(held_by('self') - before - SIZE) < NEAR
    block.close()
    assert abs(held_by('self') - before) < NEAR


def test_mapped_files_do_not_count(tmp_path):
    (tmp_path / 'images').write_bytes(bytes(SIZE))
    before = held_by('self')
    with open(tmp_path / 'images', 'rb') as file:
        block = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
        assert not sum(block[place] for place in range(0, SIZE, mmap.PAGESIZE))
        assert abs(held_by('self') - before) < NEAR


def test_a_child_counts_what_it_does_not_share():
    """The two together: no more for pages that both read, twice for those that the child writes as well."""
    block = written(SIZE)
    before = now()
    with Child() as child:
        assert str(child.pid) in children_of('self')
        assert abs(now() - before) < NEAR

    def write_again():
        for place in range(0, SIZE, mmap.PAGESIZE):
            block[place] = 2

    with Child(write_again):
        assert abs(now() - before - SIZE) < NEAR
    assert abs(now() - before) < NEAR


def test_a_figure_holds_for_a_while(monkeypatch):
    clock, told = [0.0], iter([3 * 2**30, 5 * 2**30])
    monkeypatch.setattr(host_memory.time, 'monotonic', lambda: clock[0])
    monkeypatch.setattr(host_memory, 'children_of', lambda process: [])
    monkeypatch.setattr(host_memory, 'held_by', lambda process: next(told))
    memory = HostMemory(every=60)
    assert memory.gib() == 3
    clock[0] = 59.0
    assert memory.gib() == 3
    clock[0] = 60.0
    assert memory.gib() == 5


def test_where_the_system_does_not_tell(monkeypatch):
    """No figure, and no line of one; a process that is gone is no error."""
    assert held_by(2**22 + 1) is None and children_of(2**22 + 1) == []
    monkeypatch.setattr(host_memory, 'held_by', lambda process: None)
    hub = MessageHub('no-host-memory')
    runner = types.SimpleNamespace(message_hub=hub, hooks=[LoggerHook()], log_processor=None, train_dataloader=[0])
    hook = DeferredRuntimeInfoHook()
    hook.waiting, hook.kept, hook.memory = [], 10, HostMemory()
    hook.flush(runner)
    assert 'train/host_memory' not in hub.log_scalars
