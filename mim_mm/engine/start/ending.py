"""How a command ends that did not finish: one line that says what to do, a code, and nothing left running."""

from __future__ import annotations

import atexit
import os
import re
import signal
import socket
import sys
import threading
import time
import traceback

import torch
from mmengine.config import Config
from mmengine.dist import get_rank, get_world_size

from mim_mm import files
from mim_mm.checkpoint.read import LoadError
from mim_mm.data.workers import end_workers
from mim_mm.engine.hooks.finite_hook import NotFiniteError
from mim_mm.engine.start.checks.words import ConfigError
from mim_mm.engine.start.work_dir import release
from mim_mm.engine.stop.exact_resume import ResumeError
from mim_mm.engine.stop.ranks import WATCH
from mim_mm.engine.stop.signals import INTERRUPTED
from mim_mm.folders import DataError

# The call cannot work: code 2.
OURS = (DataError, ConfigError, ResumeError, LoadError, NotFiniteError, files.NotWritten)
LAST_WORDS_S = 60
GO_ON = '--resume goes on from the last checkpoint'
# What gloo, NCCL and the store say when another process is gone or does not come.
_LOST = re.compile(
    r'gloo|nccl|connection (was )?(closed|reset|refused)|broken pipe|timed out waiting|socket timeout|recvvalue failed'
    r'|process group|wait timeout',
    re.I,
)
_NO_MEMORY = re.compile(r"can't allocate memory|cannot allocate memory|not enough memory|unable to allocate", re.I)
_DEAD_WORKER = re.compile(r'DataLoader worker \(pid(?:\(s\))? ([\d, ]+)\) (.*)', re.S)


class RanksDiffer(ConfigError):
    """What all processes found alike; the first one says it."""


def one_line(error: BaseException) -> str:
    """The message of an error; a loader worker sends its traceback along, whose last line is the error."""
    lines = str(error).strip().splitlines()
    if len(lines) > 1 and 'worker process' in lines[0]:
        return re.sub(r'^[\w.]+: ', '', lines[-1])
    return str(error)


def explain(error: BaseException, cfg: Config | None = None) -> str | None:
    """What happened and what to do, for errors that come from the machine and not from a mistake; else None."""
    if isinstance(error, torch.OutOfMemoryError):
        return f'the device has no memory left ({str(error).splitlines()[0]}): {_smaller(cfg)}; {GO_ON}'
    text = str(error)
    if isinstance(error, MemoryError) or (isinstance(error, (RuntimeError, OSError)) and _NO_MEMORY.search(text)):
        first = text.splitlines()[0] if text else 'MemoryError'
        return (
            f'this machine has no memory left ({first}): fewer num_workers and a smaller prefetch_factor of the '
            f'loaders, a smaller train_dataloader.batch_size, or a machine with more; {GO_ON}'
        )
    dead = _DEAD_WORKER.search(text)
    if dead and isinstance(error, RuntimeError):
        how = dead[2].split('\n')[0].split('Details')[0].strip(' .')
        killed = 'Killed' in how or 'exited unexpectedly' in how
        memory = (
            'SIGKILL mostly means that the memory of the machine (or of /dev/shm) was used up: fewer num_workers, a '
            'smaller prefetch_factor or batch_size, more --shm-size or --mem'
        )
        advice = memory if killed else 'run with num_workers=0 to see where'
        return f'data worker {dead[1]} {how}. {advice}; {GO_ON}'
    if isinstance(error, RuntimeError) and text.startswith('DataLoader timed out'):
        return (
            f'no batch came from the data workers: {text.splitlines()[0]}. Is the storage of the data there? Slower '
            f'data needs a larger train_dataloader.timeout (seconds); {GO_ON}'
        )
    return None


def _smaller(cfg: Config | None) -> str:
    batch = ((cfg or {}).get('train_dataloader') or {}).get('batch_size')
    half = f'train_dataloader.batch_size={max(1, batch // 2)}' if isinstance(batch, int) else 'half the batch_size'
    return (
        f'--cfg-options {half} with optim_wrapper.accumulative_counts doubled is the same training; '
        'model.backbone.with_cp=True (activation checkpointing) where the backbone has it, and --amp need less as well'
    )


def _is_lost(error: BaseException) -> bool:
    kinds = tuple(k for k in (getattr(torch.distributed, 'DistError', None),) if k)
    return isinstance(error, kinds) or (isinstance(error, RuntimeError) and bool(_LOST.search(str(error))))


def end_within(seconds: float, code: int) -> None:
    """Let the interpreter's end take no longer: it waits without a limit for a worker that is stopped."""

    def overdue() -> None:
        time.sleep(seconds)
        end_workers()
        os._exit(code)

    # Registered last it runs first.
    atexit.register(lambda: threading.Thread(target=overdue, daemon=True).start())


def end_badly(error: BaseException, cfg: Config | None = None) -> None:
    """End the process after an error of a run: 2 where the call cannot work, 130 after Ctrl-C, else 1.

    One of several processes ends at once, without what the interpreter does at its end, which could wait for the
    others; its connections break, and they end as well.

    Raises:
        SystemExit: in a process of its own. ``error`` itself, where it is nothing that we know.
    """
    several, rank = get_world_size() > 1, get_rank()
    if isinstance(error, (OSError, RuntimeError)):
        error = files.not_written(error) or error  # a full disk in whatever form
    if isinstance(error, SystemExit):
        code, text = error.code if isinstance(error.code, int) else 1, None
    elif isinstance(error, KeyboardInterrupt):
        code, text = INTERRUPTED, f'stopped by Ctrl-C before the training began; {GO_ON}, if there is one'
    elif isinstance(error, OURS):
        code, text = 2, f'error: {one_line(error)}'
    else:
        code, text = 1, explain(error, cfg)
        text = text and f'error: {text}'
    common = isinstance(error, (KeyboardInterrupt, RanksDiffer, NotFiniteError))  # of all ranks alike
    if not several:
        end_within(20.0, code)
        if text is None and not isinstance(error, SystemExit):
            raise error
        if text:
            print(text, file=sys.stderr)
        raise SystemExit(code) from None
    for number in (signal.SIGINT, signal.SIGTERM):  # from torchrun and the group, while this one ends already
        signal.signal(number, signal.SIG_IGN)
    # Whatever keeps this process from saying what happened, it ends: the kernel's own doing, without Python's.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(LAST_WORDS_S)
    me = f'rank {rank} (host {socket.gethostname()}, pid {os.getpid()})'
    if text is None and not isinstance(error, SystemExit) and _is_lost(error):
        suspects = WATCH.suspects()
        WATCH.end(lost=True)
        reason = str(error).strip().splitlines()
        lost = WATCH.named(suspects) or 'another rank; its own last lines, and those of the launcher, name it'
        text = f'error: {me} stopped at step {WATCH.step}, as it lost {lost}; {GO_ON} [{reason[0] if reason else ""}]'
    elif text is None and not isinstance(error, SystemExit):
        WATCH.end(failed=f'{type(error).__name__}: {error}')
        print(f'error: {me} failed after step {WATCH.step}:', file=sys.stderr)
        traceback.print_exception(error)
    elif text and not common:
        WATCH.end(failed=text)
        text = f'{text} [{me}, after step {WATCH.step}]'
    if text and (rank == 0 or not common):
        print(text, file=sys.stderr)
    end_workers()
    release()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
