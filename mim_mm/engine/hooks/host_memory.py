"""How much memory of the host a training and its loader workers hold."""

from __future__ import annotations

import os
import time
from pathlib import Path

_KINDS = ('Pss_Anon', 'Pss_Shmem')


def held_by(process: int | str) -> int | None:
    """Bytes of anonymous and shared memory of a process, what it shares with others divided among them.

    This is what makes the kernel kill a job: files that are mapped can be read again and do not count. Resident size
    would not do, since pages that loader workers share by fork are in the size of each already, so that it does not
    grow when they become copies.

    Returns:
        None where the system does not tell (not Linux, an old kernel, a process that has ended).
    """
    try:
        lines = Path(f'/proc/{process}/smaps_rollup').read_text().splitlines()
    except OSError:
        return None
    found = {line.split(':')[0]: int(line.split()[1]) * 1024 for line in lines if line.startswith(_KINDS)}
    return sum(found.values()) if len(found) == len(_KINDS) else None


def children_of(process: int | str) -> list[str]:
    """Ids of the processes that any thread of ``process`` has started and that still run."""
    tasks = Path(f'/proc/{process}/task')
    try:
        return [child for task in os.listdir(tasks) for child in (tasks / task / 'children').read_text().split()]
    except OSError:
        return []


class HostMemory:
    """The memory of this process and its children, loader workers most of all, looked at now and then.

    Args:
        every: seconds for which a figure holds: the kernel walks through every page to tell it (20 ms for a
            gigabyte).
    """

    def __init__(self, every: float = 60.0) -> None:
        self.every = every
        self._due = -float('inf')
        self._gib: float | None = None

    def gib(self) -> float | None:
        """Gibibytes, at most ``every`` seconds old; None where the system does not tell."""
        if time.monotonic() >= self._due:
            self._due = time.monotonic() + self.every
            own = held_by('self')
            if own is not None:
                own += sum(held_by(child) or 0 for child in children_of('self'))
            self._gib = None if own is None else own / 2**30
        return self._gib
