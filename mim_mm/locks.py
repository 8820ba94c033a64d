"""At most one owner of a folder at a time: a chain in its work dir, a training in its own.

Who owns it is written in a file there, with what tells a living process from one that got its number later.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import subprocess
import threading
import time
import weakref
from pathlib import Path
from typing import Any

from mim_mm import files
from mim_mm.slurm_queue import is_over

try:
    import fcntl
except ImportError:  # not a POSIX system
    fcntl = None

HEARTBEAT_S = 30.0  # how often an owner touches its lock
SILENT_S = 300.0  # an owner on another machine that has been silent for longer is taken for dead


# ---- processes


def process_fields(pid: int) -> list[str] | None:
    """Fields of /proc/<pid>/stat from the state on (state, ppid, pgrp, session, ...), None when there is none."""
    try:
        text = Path(f'/proc/{pid}/stat').read_text()
    except OSError:
        return None
    return text[text.rindex(')') + 2 :].split()  # the command name, in brackets, may hold blanks and brackets


def start_time(pid: int) -> str | None:
    """When a process started, as the system tells it; None when there is no such process, or only its zombie."""
    if Path('/proc/self/stat').exists():
        fields = process_fields(pid)
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


def is_here(process: dict[str, Any] | None) -> bool:
    return bool(process) and process.get('host') == socket.gethostname()


def leader_alive(process: dict[str, Any] | None) -> bool:
    """Whether the recorded stage process itself runs on this machine."""
    return is_here(process) and process.get('started') is not None and start_time(process['pid']) == process['started']


# ---- the lock


class FolderLock:
    """At most one owner of a folder.

    The lock is the kernel's (flock), so it ends with its holder, also after SIGKILL. The file says who holds it, and
    stays behind empty. Where the file system knows no locks, or keeps them per machine, the pid, start time and host in
    the file decide, with a heartbeat (the file's time) for a holder on another machine. A holder of a Slurm job that
    is over, or of an earlier life of this very job, holds nothing.

    Args:
        folder: made where there is none.
        name: of the file in it.
    """

    refused: type[Exception] = RuntimeError  # what is raised where there is another owner
    who = 'process'  # what owns such a folder, for messages

    def __init__(self, folder: str | Path, name: str):
        self.path = Path(folder) / name
        self._file = None
        self._beaten = 0.0

    def __enter__(self):
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            file = open(self.path, 'a+', encoding='utf-8')
        except OSError as error:
            raise (files.not_written(error, self.path) or error) from error
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
                raise self.refused(self._refusal(holder)) from None
            locked_here = False
        if holder:
            silent_s = time.time() - self.path.stat().st_mtime
            gone = is_over(holder.get('slurm_job'))  # such as this very job on another node, before a requeue
            elsewhere = not is_here(holder) and silent_s < SILENT_S and not gone
            if elsewhere or (not locked_here and leader_alive(holder)):
                raise self.refused(self._refusal(holder, SILENT_S - silent_s if elsewhere else 0))
        file.seek(0)
        file.truncate()
        since = time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())
        json.dump(dict(describe(os.getpid()), since=since), file)
        try:
            file.flush()
        except OSError as error:
            raise (files.not_written(error, self.path) or error) from error

    def _refusal(self, holder: dict[str, Any], wait_s: float = 0) -> str:
        who = f'pid {holder.get("pid")} on {holder.get("host")}, since {holder.get("since")}' if holder else 'unknown'
        wait = f' (or wait {wait_s:.0f} s: it is taken for gone when it is silent for {SILENT_S:.0f})' if wait_s else ''
        return (
            f'another {self.who} runs in {self.path.parent} ({who}); two at once would write into the same runs. '
            f'Wait for it, stop it, or use another --work-dir. If that machine is gone, remove {self.path}{wait}'
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
        except OSError:  # a disk that was taken away: what is written there names a process that ends
            pass
        finally:
            try:
                self._file.close()
            except OSError:
                pass


class BeatingLock(FolderLock):
    """A lock whose heart beats by itself, for an owner that has no loop of its own to do it in.

    Processes that the owner forks (loader workers) do not inherit it: one that outlives the owner by seconds would keep
    a run that was killed from going on.
    """

    def __enter__(self):
        super().__enter__()
        self._ended = threading.Event()
        threading.Thread(target=self._beat_until, args=(self._ended,), daemon=True, name='lock').start()
        _not_in_children(self)
        return self

    def _beat_until(self, ended: threading.Event) -> None:
        while not ended.wait(HEARTBEAT_S):
            self.beat()

    def __exit__(self, *exc) -> None:
        self._ended.set()
        super().__exit__(*exc)


def _not_in_children(lock: BeatingLock) -> None:
    """Close the file of a lock in every process that is forked from now on."""
    known = weakref.ref(lock)

    def close() -> None:
        mine = known()
        if mine is not None and mine._file is not None and not mine._file.closed:
            mine._file.close()  # the kernel's lock stays with the process that was forked from

    if hasattr(os, 'register_at_fork'):
        os.register_at_fork(after_in_child=close)


def read_holder(path: str | Path) -> dict[str, Any]:
    """Who holds a lock, {} for nobody."""
    return files.known_object(path)
