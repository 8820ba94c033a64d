"""From a login node: the points of a sweep as one array of Slurm jobs."""

from __future__ import annotations

from pathlib import Path

from mim_mm.transfer import datasets, plan
from mim_mm.transfer.chain import load_chain
from mim_mm.transfer.display import Display
from mim_mm.transfer.manifest import utc_now
from mim_mm.transfer.slurm import scheduler as slurm
from mim_mm.transfer.slurm.slurm_job import ChainJob, require_submitit, submit
from mim_mm.transfer.slurm.slurm_submit import LOG, ask_queue
from mim_mm.transfer.survey import Survey


def submit_sweep(call, sweep, points: list, chain_files: dict[str, Path], display: Display) -> dict[str, str]:
    """One array, an element a point: its whole chain, one stage after the other, in one allocation.

    Args:
        call: the :class:`~mim_mm.transfer.sweep.sweep_run.SweepCall`.
        chain_files: point -> its chain config.

    Returns:
        Point -> ``'done'`` or ``'queued'``.

    Raises:
        ChainError: nothing can be submitted.
    """
    require_submitit()
    what = slurm.resources(slurm.read_options(call.slurm, ()), '', call.gpus)
    queue, jobs = ask_queue(), slurm.read_jobs(sweep.work_dir)
    statuses, todo = {}, []
    for point in points:
        job = jobs.get(point.name, {}).get('job')
        if job in queue:
            display.say(f'  {point.name}  queued   job {job} is {queue[job][0]}')
            statuses[point.name] = 'queued'
        elif point_done(chain_files[point.name], sweep.folder(point)):
            display.say(f'  {point.name}  done')
            statuses[point.name] = 'done'
        else:
            todo.append(point)
    if not todo:
        display.say('nothing to submit')
        return statuses
    made = []
    for point in todo:
        one = dict(
            chain=str(chain_files[point.name].resolve()), work_dir=str(sweep.folder(point).resolve()),
            gpus=what.tasks if what.gpus_per_node or what.tasks > 1 else 0, launcher='slurm',
            data_root=list(call.data_root), auto_scale_lr=call.auto_scale_lr,
        )  # fmt: skip
        made.append(ChainJob(one, False, [], what.requeues, float(what.grace_s)))
    ids = submit(sweep.work_dir / 'slurm', sweep.name, made, what, '')
    for point, job in zip(todo, ids):
        jobs[point.name] = dict(job=job, log=LOG.format(folder='slurm', job=job), submitted=utc_now())
        statuses[point.name] = 'queued'
        display.say(f'  {point.name}  job {job}')
    slurm.write_jobs(sweep.work_dir, jobs)
    for line in slurm.hints(ids):
        display.say(line)
    return statuses


def point_done(chain_file: Path, work_dir: Path) -> bool:
    """Whether every stage of a point is done and nothing it was made from has changed."""
    survey = Survey(load_chain(chain_file, work_dir), datasets.DigestCache(work_dir / 'digests.json'))
    return all(decision.action == plan.SKIP for decision in survey.plan().values())
