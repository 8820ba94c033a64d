"""Processes that outlive the one that started them: who runs in a work dir, and is a recorded stage still alive?

Each stage is the leader of its own process group, so that a stage and its workers are stopped together. If the chain
itself is killed with SIGKILL the stage goes on; its pid alone would not tell it from a stranger that got the same
number later, so the time it was started is recorded with it.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

from mim_mm.files import known_object
from mim_mm.transfer.chain import ChainError
from mim_mm.transfer.manifest import utc_now
from mim_mm.transfer.slurm import scheduler as slurm

try:
    import fcntl
except ImportError:  # not a POSIX system
    fcntl = None

LOCK_FILE = 'transfer.lock'
HEARTBEAT_S = 30.0  # how often a running chain touches its lock
SILENT_S = 300.0  # a chain or stage on another machine that has been silent for longer is taken for dead


def _stat(pid: int) -> list[str] | None:
    """Fields of /proc/<pid>/stat from the state on (state, ppid, pgrp, session, ...), None when there is none."""
    try:
        text = Path(f'/proc/{pid}/stat').read_text()
    except OSError:
        return None
    return text[text.rindex(')') + 2 :].split()  # the command name, in brackets, may hold blanks and brackets


def start_time(pid: int) -> str | None:
    """When a process started, as the system tells it; None when there is no such process, or only its zombie."""
    if Path('/proc/self/stat').exists():
        fields = _stat(pid)
        return None if fields is None or fields[0] in 'ZX' else f'{_boot_id()}:{fields[19]}'
    try:
        run = subprocess.run(['ps', '-o', 'lstart=', '-p', str(pid)], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    return run.stdout.strip() or None


def _boot_id() -> str:
    try:
        return Path('/proc/sys/kernel/random/boot_id').read_text().strip()[:8]
    except OSError:
        return ''


def describe(pid: int) -> dict[str, Any]:
    """What is recorded of a process: pid (also its group), start time, host, and the Slurm job it belongs to if any."""
    job = os.environ.get('SLURM_JOB_ID')
    return dict(pid=pid, started=start_time(pid), host=socket.gethostname(), **(dict(slurm_job=job) if job else {}))


def group_members(pid: int) -> list[int]:
    """Living processes of the group a stage led, the stage itself included."""
    if Path('/proc/self/stat').exists():
        pids = [int(entry) for entry in os.listdir('/proc') if entry.isdigit()]
        stats = {p: _stat(p) for p in pids}
        return sorted(p for p, f in stats.items() if f is not None and f[0] not in 'ZX' and f[2] == str(pid))
    try:
        run = subprocess.run(['ps', '-A', '-o', 'pid=,pgid=,stat='], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return []
    rows = [line.split() for line in run.stdout.splitlines()]
    return sorted(int(row[0]) for row in rows if len(row) > 2 and row[1] == str(pid) and row[2][0] != 'Z')


def is_here(process: dict[str, Any] | None) -> bool:
    return bool(process) and process.get('host') == socket.gethostname()


def leader_alive(process: dict[str, Any] | None) -> bool:
    """Whether the recorded stage process itself runs on this machine."""
    return is_here(process) and process.get('started') is not None and start_time(process['pid']) == process['started']


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


class WorkDirLock:
    """At most one chain in a work dir.

    The lock is the kernel's (flock), so it ends with its holder, also after SIGKILL. The file says who holds it, and
    stays behind empty. Where the file system knows no locks, or keeps them per machine, the pid, start time and host in
    the file decide, with a heartbeat (the file's time) for a holder on another machine.

    Args:
        name: of the file; Slurm jobs that each run one stage of a chain have one lock a stage.
    """

    def __init__(self, work_dir: Path, name: str = LOCK_FILE):
        self.path = Path(work_dir) / name
        self._file = None
        self._beaten = 0.0

    def __enter__(self) -> WorkDirLock:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        file = open(self.path, 'a+', encoding='utf-8')
        try:
            self._acquire(file)
        except BaseException:
            file.close()
            raise
        self._file = file
        return self

    def _acquire(self, file) -> None:
        holder = read_holder(self.path)
        locked_here = True
        try:
            if fcntl is None:
                raise OSError(errno.ENOSYS, 'no flock')
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES):
                raise ChainError(self._refusal(holder)) from None
            locked_here = False
        if holder:
            silent_s = time.time() - self.path.stat().st_mtime
            gone = slurm.is_over(holder.get('slurm_job'))  # such as this very job on another node, before a requeue
            elsewhere = not is_here(holder) and silent_s < SILENT_S and not gone
            if elsewhere or (not locked_here and leader_alive(holder)):
                raise ChainError(self._refusal(holder))
        file.seek(0)
        file.truncate()
        json.dump(dict(describe(os.getpid()), since=utc_now()), file)
        file.flush()

    def _refusal(self, holder: dict[str, Any]) -> str:
        who = f'pid {holder.get("pid")} on {holder.get("host")}, since {holder.get("since")}' if holder else 'unknown'
        return (
            f'another transfer.py runs in {self.path.parent} ({who}); two at once would write into the same runs. '
            f'Wait for it, stop it, or use another --work-dir. If that machine is gone, remove {self.path}'
        )

    def beat(self) -> None:
        """Show that the holder lives; cheap enough to call in every turn of a loop."""
        if time.monotonic() - self._beaten > HEARTBEAT_S:
            self._beaten = time.monotonic()
            try:
                os.utime(self.path)
            except OSError:
                pass

    def __exit__(self, *exc) -> None:
        try:
            self._file.seek(0)
            self._file.truncate()
        finally:
            self._file.close()


def read_holder(path: Path) -> dict[str, Any]:
    return known_object(path)
