"""From a login node: the points of a sweep as one array of Slurm jobs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mim_mm.transfer import datasets
from mim_mm.transfer.chain import load_chain
from mim_mm.transfer.display import Display
from mim_mm.transfer.manifest import utc_now
from mim_mm.transfer.slurm import scheduler as slurm
from mim_mm.transfer.slurm.slurm_job import ChainJob, require_submitit, submit
from mim_mm.transfer.slurm.slurm_submit import LOG, ask_queue
from mim_mm.transfer.standing import Standing
from mim_mm.transfer.sweep.grid import Point, Sweep
from mim_mm.transfer.words import Action


@dataclass(frozen=True)
class ArrayPlan:
    """What a call submits for the points of a sweep.

    Attributes:
        jobs: point -> what slurm.json says of its last submission.
        statuses: ``'done'`` or ``'queued'`` of the points that are not submitted.
        lines: what is said of these.
        todo: the points to submit.
    """

    what: slurm.Resources
    jobs: dict[str, dict[str, Any]]
    statuses: dict[str, str]
    lines: list[str]
    todo: list[Point]


def plan_array(call, sweep: Sweep, points: list[Point], chain_files: dict[str, Path]) -> ArrayPlan:
    """Which points are queued, which are done, which are to be submitted.

    Args:
        call: the :class:`~mim_mm.transfer.sweep.sweep_run.SweepCall`.
        chain_files: point -> its chain config.

    Raises:
        ChainError: nothing can be submitted.
    """
    require_submitit()
    what = slurm.resources(slurm.read_options(call.slurm, ()), '', call.gpus)
    queue, jobs = ask_queue(), slurm.read_jobs(sweep.work_dir)
    found = ArrayPlan(what, jobs, {}, [], [])
    for point in points:
        job = jobs.get(point.name, {}).get('job')
        if job in queue:
            found.lines.append(f'  {point.name}  queued   job {job} is {queue[job][0]}')
            found.statuses[point.name] = 'queued'
        elif point_done(chain_files[point.name], sweep.folder(point)):
            found.lines.append(f'  {point.name}  done')
            found.statuses[point.name] = 'done'
        else:
            found.todo.append(point)
    return found


def submit_array(
    planned: ArrayPlan, call, sweep: Sweep, chain_files: dict[str, Path], display: Display
) -> dict[str, str]:
    """One array, an element a point: its whole chain, one stage after the other, in one allocation.

    Returns:
        Point -> ``'done'`` or ``'queued'``.

    Raises:
        ChainError: sbatch refused.
    """
    what, jobs, statuses = planned.what, planned.jobs, dict(planned.statuses)
    for line in planned.lines:
        display.say(line)
    if not planned.todo:
        display.say('nothing to submit')
        return statuses
    made = []
    for point in planned.todo:
        one = dict(
            chain=str(chain_files[point.name].resolve()), work_dir=str(sweep.folder(point).resolve()),
            gpus=what.tasks if what.gpus_per_node or what.tasks > 1 else 0, launcher='slurm',
            data_root=list(call.data_root), auto_scale_lr=call.auto_scale_lr,
        )  # fmt: skip
        made.append(ChainJob(one, False, [], what.requeues, float(what.grace_s)))
    ids = submit(sweep.work_dir / 'slurm', sweep.name, made, what, '')
    for point, job in zip(planned.todo, ids):
        jobs[point.name] = dict(job=job, log=LOG.format(folder='slurm', job=job), submitted=utc_now())
        statuses[point.name] = 'queued'
        display.say(f'  {point.name}  job {job}')
    slurm.write_jobs(sweep.work_dir, jobs)
    for line in slurm.hints(ids):
        display.say(line)
    return statuses


def point_done(chain_file: Path, work_dir: Path) -> bool:
    """Whether every stage of a point is done and nothing it was made from has changed."""
    standing = Standing(load_chain(chain_file, work_dir), datasets.DigestCache(work_dir / 'digests.json'))
    return all(decision.action == Action.SKIP for decision in standing.decisions().values())
