"""One training at a time in a work dir: two would mix their checkpoints, and both end with 0."""

from __future__ import annotations

import atexit
import os

from mim_mm.engine.start.checks.words import ConfigError
from mim_mm.locks import BeatingLock

LOCK_FILE = 'train.lock'
RANKS = dict(pytorch='RANK', slurm='SLURM_PROCID', mpi='OMPI_COMM_WORLD_RANK')

_owned: list[TrainingLock] = []


class TrainingLock(BeatingLock):
    """Of the first process of a training; the others belong to it."""

    refused, who = ConfigError, 'training'


def own_work_dir(work_dir: str, launcher: str = 'none') -> None:
    """Own a work dir until this process ends, or calls again for another training.

    Args:
        launcher: of the command line; of several processes the first one owns the folder for all.

    Raises:
        ConfigError: another training runs there; with its pid and host.
        NotWritten: the work dir cannot be written to.
    """
    release()
    if os.environ.get(RANKS.get(launcher, ''), '0') == '0':
        _owned.append(TrainingLock(work_dir, LOCK_FILE).__enter__())


@atexit.register
def release() -> None:
    """Give the work dir back; the end of the process does it as well."""
    while _owned:
        _owned.pop().__exit__()
