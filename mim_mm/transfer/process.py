"""Processes that outlive the one that started them: who runs in a work dir, and is a recorded stage still alive?

Each stage is the leader of its own process group, so that a stage and its workers are stopped together. If the chain
itself is killed with SIGKILL the stage goes on; its pid alone would not tell it from a stranger that got the same
number later, so the time it was started is recorded with it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

from mim_mm.locks import SILENT_S, FolderLock, describe, is_here, leader_alive, process_fields, read_holder, start_time
from mim_mm.transfer.chain import ChainError

__all__ = [
    'SILENT_S', 'WorkDirLock', 'describe', 'group_members', 'is_here', 'leader_alive', 'orphans', 'read_holder',
    'signal_group', 'start_time', 'stop_group', 'stop_group_if_orphaned',
]  # fmt: skip

LOCK_FILE = 'transfer.lock'


def group_members(pid: int) -> list[int]:
    """Living processes of the group a stage led, the stage itself included."""
    if Path('/proc/self/stat').exists():
        pids = [int(entry) for entry in os.listdir('/proc') if entry.isdigit()]
        stats = {p: process_fields(p) for p in pids}
        return sorted(p for p, f in stats.items() if f is not None and f[0] not in 'ZX' and f[2] == str(pid))
    try:
        run = subprocess.run(['ps', '-A', '-o', 'pid=,pgid=,stat='], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return []
    rows = [line.split() for line in run.stdout.splitlines()]
    return sorted(int(row[0]) for row in rows if len(row) > 2 and row[1] == str(pid) and row[2][0] != 'Z')


def orphans(process: dict[str, Any] | None) -> list[int]:
    """Workers of a recorded stage that are left although the stage itself is gone.

    A number is not given to a new process while a group of that number has members, so when the leader is gone the
    members are its own.
    """
    if not is_here(process) or start_time(process['pid']) is not None:
        return []
    return group_members(process['pid'])


def signal_group(pid: int, sign: int) -> None:
    try:
        os.killpg(pid, sign)
    except (ProcessLookupError, PermissionError):
        pass


def stop_group(pid: int, grace_s: float) -> None:
    """SIGTERM to every process of a group, SIGKILL to those that are left after ``grace_s`` seconds."""
    for sign, wait_s in ((signal.SIGTERM, grace_s), (signal.SIGKILL, 5.0)):
        if not group_members(pid):
            return
        signal_group(pid, sign)
        end = time.monotonic() + wait_s
        while group_members(pid) and time.monotonic() < end:
            time.sleep(0.05)


def stop_group_if_orphaned(process: dict[str, Any]) -> None:
    """Stop what is left of a stage whose leader is gone, such as loader workers, before the stage is started again."""
    if orphans(process):
        stop_group(process['pid'], grace_s=5.0)


class WorkDirLock(FolderLock):
    """At most one chain in a work dir.

    Args:
        name: of the file; Slurm jobs that each run one stage of a chain have one lock a stage.
    """

    refused, who = ChainError, 'transfer.py'

    def __init__(self, work_dir: Path, name: str = LOCK_FILE):
        super().__init__(work_dir, name)
