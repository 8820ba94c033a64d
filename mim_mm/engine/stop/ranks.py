"""Which process of several is lost: each says where it is, so that the others can name the one that they wait for.

A dead or hanging process makes the others wait in a collective until its connection breaks or the process group's
timeout is over (``env_cfg.dist_cfg.timeout``, seconds), and the error that follows names nobody. Here a thread of each
process writes into the store at which they met which step it reached, and what its main thread is doing.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
import time
from datetime import timedelta
from typing import Any

from mmengine.dist import get_rank, get_world_size
from mmengine.hooks import Hook

from mim_mm.compat.internals import line_of, own_store
from mim_mm.data.workers import end_workers
from mim_mm.registry import HOOKS

TIMEOUT_S = 1800.0  # of gloo and NCCL where a config says nothing; longer than anything that one rank does alone
BEAT_S = 2.0
SILENT_BEATS = 3  # a process whose beat stands still for so long is dead or stopped
OVER_S = 30.0  # how long a process that stands still may go on after the job has failed elsewhere
OVER = 'mim_mm/over'
SHOWN = 4


def timeout_of(cfg: Any) -> timedelta:
    """How long a process waits for the others: ``env_cfg.dist_cfg.timeout`` of a config."""
    dist_cfg = (cfg.get('env_cfg') or {}).get('dist_cfg') or {}
    return timedelta(seconds=float(dist_cfg.get('timeout') or TIMEOUT_S))


class RankWatch:
    """Where this process is, told to the others, and where they are."""

    def __init__(self) -> None:
        self.step, self.doing, self.failed = 0, 'starting', ''
        self._since, self._beats = time.monotonic(), 0
        self._store: Any = None
        self._end = threading.Event()
        self._main = threading.main_thread().ident

    # ---- telling

    def start(self, timeout_s: float, step: int = 0) -> None:
        """Begin to tell, in a process of several; once a process."""
        self.at(step, 'starting')
        if get_world_size() == 1 or self._store is not None:
            return
        self._store = own_store()
        self._end.clear()
        self._beat()
        threading.Thread(target=self._tell, args=(timeout_s / 2,), daemon=True).start()

    def at(self, step: int, doing: str) -> None:
        self.step, self.doing, self._since = step, doing, time.monotonic()

    def end(self, failed: str = '', lost: bool = False) -> None:
        """Say how this process ends, and stop telling.

        Args:
            failed: its own error, if any.
            lost: it ends since another one is lost.
        """
        self._end.set()
        store, self._store = self._store, None
        if store is None:
            return
        self.doing, self.failed = 'ended', failed

        def say() -> None:
            try:
                self._write(store)
                if failed or lost:
                    store.set(OVER, '1')
            except Exception:  # the store went with the process that kept it
                pass

        last = threading.Thread(target=say, daemon=True)
        last.start()
        last.join(BEAT_S)

    def _write(self, store: Any) -> None:
        self._beats += 1
        told = dict(beat=self._beats, step=self.step, doing=self.doing, failed=self.failed[:500])
        told.update(where=line_of(self._main), host=socket.gethostname(), pid=os.getpid())
        store.set(f'mim_mm/rank/{get_rank()}', json.dumps(told))

    def _beat(self) -> bool:
        try:
            self._write(self._store)
        except Exception:  # it went with the process that kept it, and what waits will fail
            return False
        return True

    def _tell(self, patience_s: float) -> None:
        warned = over_since = None
        while not self._end.wait(BEAT_S):
            still = time.monotonic() - self._since
            if over_since or not self._beat() or self._is_over():
                over_since = over_since or time.monotonic()  # and no more calls of a store that may be gone
                if min(time.monotonic() - over_since, still) > OVER_S:
                    self._leave_too()
            elif still > patience_s and warned != (self.step, self.doing):
                warned = (self.step, self.doing)
                self._warn(still, patience_s * 2)

    def _is_over(self) -> bool:
        try:
            return self._store.check([OVER])
        except Exception:
            return True

    def _leave_too(self) -> None:
        """The job is over, and the main thread does not notice: it waits for a worker or for the device."""
        where = f'{self.doing} at {line_of(self._main)}'
        print(f'error: rank {get_rank()} (host {socket.gethostname()}, pid {os.getpid()}) is {where} since step '
              f'{self.step}, and the others have ended: it ends as well', file=sys.stderr, flush=True)  # fmt: skip
        end_workers()
        os._exit(1)

    def _warn(self, still: float, timeout_s: float) -> None:
        suspects = self.suspects()
        healthy = set(range(get_world_size())) - set(suspects)
        if suspects and get_rank() == min(healthy, default=-1):
            text = f'no step for {still:.0f} s (after {timeout_s:g} s the job ends); waiting for {self.named(suspects)}'
            print(f'WARNING: {text}', file=sys.stderr, flush=True)

    # ---- looking

    def _read(self) -> dict[int, dict]:
        found = {}
        for rank in range(get_world_size()):
            key = f'mim_mm/rank/{rank}'
            if self._store.check([key]):
                found[rank] = json.loads(self._store.get(key))
        return found

    def suspects(self) -> dict[int, dict]:
        """Ranks that the others wait for, with what they said last; {} where nobody can tell.

        Those that failed; else those whose beat stands still; else those that are behind this one. Takes seconds, and
        no longer where the store does not answer: it lies in torchrun, or in rank 0, which may be the stopped one.
        """
        if self._store is None:
            return {}
        found: list[dict[int, dict]] = []
        looking = threading.Thread(target=lambda: found.append(self._look()), daemon=True)
        looking.start()
        looking.join(BEAT_S * (SILENT_BEATS + 2))
        return found[0] if found else self._store_is_gone()

    @staticmethod
    def _store_is_gone() -> dict[int, dict]:
        return {} if get_rank() == 0 else {0: {}}

    def _look(self) -> dict[int, dict]:
        try:
            before = self._read()
            failed = {rank: told for rank, told in before.items() if told['failed']}
            if failed:
                return failed
            time.sleep(BEAT_S * SILENT_BEATS)
            now = self._read()
        except Exception:
            return self._store_is_gone()
        others = {rank: told for rank, told in now.items() if rank != get_rank()}
        kinds = (
            lambda rank, told: told['failed'],
            lambda rank, told: told['beat'] == before.get(rank, {}).get('beat'),
            lambda rank, told: told['step'] < self.step,
            lambda rank, told: told['step'] == self.step and told['doing'] == 'reading data' != self.doing,
        )
        for kind in kinds:
            found = {rank: told for rank, told in others.items() if kind(rank, told)}
            if found:
                return {rank: dict(told, silent=kind is kinds[1]) for rank, told in found.items()}
        return {}

    @staticmethod
    def named(suspects: dict[int, dict]) -> str:
        """Ranks in words."""
        words = []
        for rank, told in list(suspects.items())[:SHOWN]:
            if not told:
                words.append(f'rank {rank} or its launcher, which keeps the store of the job and does not answer')
                continue
            text = f'rank {rank} (host {told["host"]}, pid {told["pid"]}), last step {told["step"]}'
            if told['failed']:
                text += f', which failed: {told["failed"]}'
            elif told.get('silent'):
                text += ', which is dead or stopped'
            else:
                text += f', {told["doing"]} at {told["where"]}'
            words.append(text)
        rest = len(suspects) - SHOWN
        return '; '.join(words) + (f' and {rest} more' if rest > 0 else '')


WATCH = RankWatch()


@HOOKS.register_module()
class RankWatchHook(Hook):
    """Tell :data:`WATCH` where the training is; costs two assignments an iteration."""

    priority = 'VERY_HIGH'
    changes_learning = False

    def before_train(self, runner) -> None:
        WATCH.start(timeout_of(runner.cfg).total_seconds(), runner.iter)

    def before_train_epoch(self, runner) -> None:
        WATCH.at(runner.iter, 'reading data')

    def before_train_iter(self, runner, batch_idx: int, data_batch=None) -> None:
        WATCH.at(runner.iter, 'in the step')

    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        WATCH.at(runner.iter + 1, 'reading data')

    def after_val_iter(self, runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        WATCH.at(WATCH.step, f'in batch {batch_idx + 1} of the validation')

    def after_train(self, runner) -> None:
        WATCH.end()
