"""What a Slurm job of a chain runs: ``tools/transfer.py`` for one stage, or for the chain of one point of a sweep.

The batch script calls a :class:`ChainJob` through submitit, which becomes that command; the training is a step of the
job (``srun``), so that Slurm's warning signal reaches its processes and not this one. A training that was stopped by it
ends with a checkpoint, and the job puts itself back into the queue under its own number: whatever waits for it goes on
waiting.
"""

from __future__ import annotations

import dataclasses
import os
import shlex
import signal
import time
from pathlib import Path
from typing import Any

from mim_mm.transfer.call import Call, transfer_command
from mim_mm.transfer.chain import ChainError
from mim_mm.transfer.display import Display
from mim_mm.transfer.slurm import scheduler as slurm
from mim_mm.transfer.slurm.scheduler import Resources


@dataclasses.dataclass
class ChainJob:
    """Pickled by submitit on the login node, called on the first node of the allocation.

    Args:
        call: fields of the :class:`Call` to make.
        as_job: other jobs of the same chain may run at the same time.
        rerun: stages to run again in the first life of the job; after a requeue they go on instead.
    """

    call: dict[str, Any]
    as_job: bool = True
    rerun: list[str] = dataclasses.field(default_factory=list)
    requeues: int = slurm.REQUEUES
    grace_s: float = 120.0

    def command(self, life: int) -> list[str]:
        """The call of ``tools/transfer.py``, in the ``life``-th life of the job, from 0."""
        rerun = [] if life else self.rerun
        call = Call(**self.call, rerun=rerun, grace_s=self.grace_s, as_job=self.as_job, requeues=self.requeues)
        return transfer_command(call)

    def __call__(self) -> None:
        """Become the command, in the same process: one that Slurm signals, and whose exit code is the job's."""
        life = restarts()
        where = f'job {os.environ.get("SLURM_JOB_ID")} on {os.environ.get("SLURM_JOB_NODELIST")}'
        print(f'{where}, requeued {life}x', flush=True)
        command = self.command(life)
        os.execv(command[0], command)


def restarts() -> int:
    """How often the job that this process runs in was requeued."""
    return int(os.environ.get('SLURM_RESTART_COUNT') or 0)


def outlive_warnings() -> None:
    """Do not die of a warning signal that is meant for the steps; not SIG_IGN, which they would inherit."""
    for number in (signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, lambda *_: None)


def requeue(limit: int, display: Display) -> None:
    """Put the job back into the queue, unless it was there ``limit`` times; returns when that cannot be."""
    if restarts() >= limit:
        display.say(f'not requeued: {restarts()} times already (--slurm requeues={limit}); call again to go on')
        return
    display.say('requeueing')
    if slurm.requeue():
        time.sleep(300)  # Slurm ends this process
    display.say('scontrol requeue was refused (JobRequeue=0?); the same command of tools/transfer.py goes on')


def parameters(name: str, what: Resources, when: str, count: int) -> dict[str, Any]:
    """What submitit's executor is told for ``count`` jobs that start after ``when``."""
    package_home = str(Path(__file__).resolve().parents[3])
    more: dict[str, Any] = dict(what.sbatch, signal=what.signal, requeue=True)
    if when:
        more.update({'dependency': when, 'kill-on-invalid-dep': 'yes'})
    setup = [
        'trap : USR1 USR2 TERM  # without it the shell dies of a signal meant for the training, and the job with it',
        f'export PYTHONPATH={shlex.quote(package_home)}"${{PYTHONPATH:+:$PYTHONPATH}}"',
        # since Slurm 22.05 steps do not take it from the job
        '[ -z "$SLURM_CPUS_PER_TASK" ] || export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK',
    ]
    kept = dict(
        job_name=name, nodes=what.nodes, ntasks_per_node=what.tasks_per_node, use_srun=False, setup=setup,
        stderr_to_stdout=True, additional_parameters=more,
    )  # fmt: skip
    if what.gpus_per_node and not {'gres', 'gpus', 'gpus-per-task'} & set(what.sbatch):
        kept['gpus_per_node'] = what.gpus_per_node
    if count > 1:
        kept['array_parallelism'] = what.array_parallelism
    return kept


def submit(folder: Path, name: str, jobs: list[ChainJob], what: Resources, when: str) -> list[str]:
    """Submit one job, or several as one array.

    Args:
        folder: for batch scripts, pickles and output; on a file system that the nodes share.

    Returns:
        Their ids, ``12`` or ``12_0, 12_1, ...``.

    Raises:
        ChainError: sbatch refused; the message is Slurm's.
    """
    submitit = require_submitit()
    place = str(Path(folder).resolve())
    if '%' in place or not place.isprintable():
        raise ChainError(f'{place!r}: Slurm reads % and line breaks in the names of output files otherwise: take '
                         'another --work-dir')  # fmt: skip
    try:
        executor = submitit.SlurmExecutor(folder=str(Path(folder).resolve()))
        executor.update_parameters(**parameters(name, what, when, len(jobs)))
        if len(jobs) == 1:
            return [executor.submit(jobs[0]).job_id]
        return [job.job_id for job in executor.submit_array(jobs)]
    except (RuntimeError, OSError, submitit.core.utils.FailedJobError) as error:
        raise ChainError(f'job {name!r} could not be submitted ({what}): {error}') from error


def require_submitit():
    """The module; raises ChainError with the command that installs it."""
    try:
        import submitit
    except ImportError:
        raise ChainError(
            '--launcher slurm on a login node submits jobs through submitit, which is not installed: pip install '
            "submitit (or pip install -e '.[slurm]'); inside an allocation (salloc, sbatch) it is not needed"
        ) from None
    return submitit
