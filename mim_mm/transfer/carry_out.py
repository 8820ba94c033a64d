"""Doing what was planned: saying it, and unless it is a dry run, running the stages or submitting their jobs."""

from __future__ import annotations

import shlex
from collections import Counter

from mim_mm.transfer import datasets, launch, process
from mim_mm.transfer.chain import ChainError, Stage
from mim_mm.transfer.compare import compare_check
from mim_mm.transfer.execute import STOPPED_CODE, Execution
from mim_mm.transfer.plan import Plan
from mim_mm.transfer.slurm import slurm_job, slurm_submit
from mim_mm.transfer.words import Action, Kind


def carry_out(plan: Plan | slurm_submit.Submission) -> int:
    """Run the stages of a plan and wait for them, or submit them and do not; in a dry run only say what would be done.

    Returns:
        The exit code, as :func:`mim_mm.transfer.run_chain` has it.

    Raises:
        ChainError: data are missing, somebody else is at work in the work dir, or a job was refused.
    """
    if isinstance(plan, slurm_submit.Submission):
        return slurm_submit.submit_chain(plan)
    call, chain, display = plan.resolved.call, plan.resolved.chain, plan.resolved.display
    say_plan(plan)
    if call.dry_run:
        display.say(plan.missing or 'data: everything planned stages read is there')
        return 0
    if plan.missing:
        raise ChainError(plan.missing)
    refuse_strangers(plan)
    if not call.as_job:
        slurm_submit.refuse_queued(chain.work_dir)
    lock_file = f'transfer.{"+".join(call.only)}.lock' if call.as_job else process.LOCK_FILE
    with process.WorkDirLock(chain.work_dir, lock_file) as lock:
        compare_check.write(plan.resolved.standing, plan.comparison)
        code = Execution(plan.resolved, lock).run()
    if code == STOPPED_CODE and call.requeues is not None:
        slurm_job.requeue(call.requeues, display)
    return code


def say_plan(plan: Plan) -> None:
    """One line a stage, one for all that are not selected; in a dry run also what it reads and its command."""
    chain, display = plan.resolved.chain, plan.resolved.display
    display.say(f'chain {chain.name} in {chain.work_dir}')
    decided = plan.decisions
    left = [stage.name for stage in chain.stages if stage.name in decided and decided[stage.name].action == Action.LEFT]
    shown = [stage for stage in chain.stages if stage.name not in left]
    width = max(len(stage.name) for stage in shown)
    for stage in shown:
        if stage.kind == Kind.REPORT:
            display.say(f'  {stage.name:{width}}  run      always, last')
        else:
            decision = decided[stage.name]
            display.say(f'  {stage.name:{width}}  {decision.action:7}  {decision.reason}')
        for line in stage_lines(plan, stage) if plan.resolved.call.dry_run else ():
            display.say(f'      {line}')
    if left:
        reasons = Counter(decided[name].reason for name in left)
        display.say(f'  {len(left)} more stages: ' + ', '.join(f'{count} {why}' for why, count in reasons.items()))


def stage_lines(plan: Plan, stage: Stage) -> list[str]:
    """What a stage reads, and its command."""
    if stage.kind == Kind.REPORT:
        return [f'$ {shlex.join(launch.report_command(plan.resolved.chain.work_dir))}']
    if stage.checkpoint:
        return [f'weights {stage.checkpoint}']
    sources = datasets.sources(plan.resolved.standing.config(stage).to_dict()).values()
    lines = [
        f'config  {stage.config}',
        f'weights {f"from {stage.init}" if stage.init else "random"}',
        f'data    {", ".join(dict.fromkeys(map(str, sources))) or "made by the dataset itself"}',
    ]
    command = plan.commands.get(stage.name)
    return [*lines, f'$ {shlex.join(command)}'] if command else lines


def refuse_strangers(plan: Plan) -> None:
    """Stop when a stage left by an earlier call still runs and is not what this call wants.

    Raises:
        ChainError: with the command that stops it.
    """
    standing = plan.resolved.standing
    for stage in standing.stages:
        decision, record = plan.decisions[stage.name], standing.record(stage)[0]
        if decision.action == Action.BLOCKED and any(standing.running(stage, record)):
            raise ChainError(
                f'stage {stage.name!r}: {decision.reason}. Wait for it, or stop it on {record.process["host"]} with '
                f'"kill -TERM -- -{record.process["pid"]}" (its last checkpoint stays), then call again'
            )
