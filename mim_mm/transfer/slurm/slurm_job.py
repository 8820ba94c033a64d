"""What a Slurm job of a chain runs: one stage, or the whole chain of one point of a sweep, inside its allocation.

The batch script calls an instance through submitit; the training is a step of the job (``srun``), so that Slurm's
warning signal reaches its processes and not this one. A training that was stopped by it ends with a checkpoint, and the
job puts itself back into the queue under its own number: whatever waits for it goes on waiting.
"""

from __future__ import annotations

import dataclasses
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from mim_mm.transfer.display import Display
from mim_mm.transfer.execute import STOPPED_CODE
from mim_mm.transfer.slurm import scheduler as slurm
from mim_mm.transfer.slurm.scheduler import Resources


@dataclasses.dataclass
class ChainJob:
    """Pickled by submitit on the login node, called on the first node of the allocation.

    Args:
        call: fields of the :class:`~mim_mm.transfer.run.Call` to make.
        as_job: other jobs of the same chain may run at the same time.
        rerun: stages to run again in the first life of the job; after a requeue they go on instead.
    """

    call: dict[str, Any]
    as_job: bool = True
    rerun: list[str] = dataclasses.field(default_factory=list)
    requeues: int = slurm.REQUEUES
    grace_s: float = 120.0

    def __call__(self) -> None:
        from mim_mm.transfer.run import Call, ChainError, run_chain

        for number in (signal.SIGUSR1, signal.SIGUSR2):  # meant for the steps; not SIG_IGN, which they would inherit
            signal.signal(number, lambda *_: None)
        life = int(os.environ.get('SLURM_RESTART_COUNT') or 0)
        display = Display()
        display.say(f'job {os.environ.get("SLURM_JOB_ID")} on {os.environ.get("SLURM_JOB_NODELIST")}, requeued {life}x')
        try:
            call = Call(**self.call, rerun=[] if life else self.rerun)
            code = run_chain(call, display, grace_s=self.grace_s, as_job=self.as_job)
        except ChainError as error:
            display.say(f'error: {error}')
            code = 2
        if code == STOPPED_CODE:
            self._requeue(display, life)
        if code:
            sys.exit(code)

    def _requeue(self, display: Display, life: int) -> None:
        if life >= self.requeues:
            display.say(f'not requeued: {life} times already (--slurm requeues={self.requeues}); call again to go on')
            return
        display.say('requeueing')
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # submitit ignores it, which would cost Slurm's whole KillWait
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
        f'export PYTHONPATH="{package_home}${{PYTHONPATH:+:$PYTHONPATH}}"',
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
    from mim_mm.transfer.chain import ChainError

    submitit = require_submitit()
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
    from mim_mm.transfer.chain import ChainError

    try:
        import submitit
    except ImportError:
        raise ChainError(
            '--launcher slurm on a login node submits jobs through submitit, which is not installed: pip install '
            "submitit (or pip install -e '.[slurm]'); inside an allocation (salloc, sbatch) it is not needed"
        ) from None
    return submitit
