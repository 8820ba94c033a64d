"""What a call will do: which stages, from what, with which command. Everything that can be refused is refused here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mim_mm.transfer import datasets, launch
from mim_mm.transfer.chain import ChainError, Stage
from mim_mm.transfer.compare import compare_check
from mim_mm.transfer.resolve import Resolved
from mim_mm.transfer.rules import Decision
from mim_mm.transfer.slurm import slurm_submit


@dataclass(frozen=True)
class Plan:
    """What a call does with each stage on this machine; nothing is done yet, and each stage is looked at once more
    when its turn comes.

    Attributes:
        decisions: of every stage but the report.
        commands: of the stages that start.
        missing: what is missing of the data of these, in words; empty when nothing is.
        comparison: content of compare.json; None for a chain that is no comparison.
    """

    resolved: Resolved
    decisions: dict[str, Decision]
    commands: dict[str, list[str]]
    missing: str
    comparison: dict[str, Any] | None


def plan(resolved: Resolved) -> Plan | slurm_submit.Submission:
    """What will be done: here, or on a login node with ``launcher='slurm'`` by jobs that are submitted.

    Raises:
        ChainError: a stage cannot run as it is configured, or the arms of a comparison are not treated alike.
    """
    comparison = compare_check.check(resolved.standing)
    if slurm_submit.wanted(resolved.call.launcher, resolved.call.slurm):
        return slurm_submit.plan_jobs(resolved)
    decisions = resolved.standing.decisions()
    commands = stage_commands(resolved, decisions)
    return Plan(resolved, decisions, commands, missing_data(resolved, decisions), comparison)


def stage_commands(resolved: Resolved, decisions: dict[str, Decision]) -> dict[str, list[str]]:
    """The command of every stage that starts; building them all finds what is wrong with the last one now."""
    call, standing = resolved.call, resolved.standing
    commands = {}
    for stage in standing.stages:
        if not decisions[stage.name].starts:
            continue
        launch.check_handover(stage, standing.config(stage))
        for artifact in stage.artifacts:
            launch.artifact_command(artifact, stage, resolved.chain.folder(stage), Path('checkpoint'))
        commands[stage.name] = launch.train_command(
            stage,
            resolved.chain.folder(stage),
            gpus=call.gpus if stage.gpus is None else stage.gpus,
            launcher=stage.launcher or call.launcher,
            parent=parent_checkpoint(resolved, stage, decisions) if stage.init else None,
            resume=decisions[stage.name].resume,
            auto_scale_lr=call.auto_scale_lr,
            allow_change=call.allow_change,
            trust_pickle=call.trust_pickle,
            log=call.log,
            scripts=resolved.scripts,
        )
    return commands


def parent_checkpoint(resolved: Resolved, stage: Stage, decisions: dict[str, Decision]) -> Path:
    """The parent's checkpoint where it is known already, else where it will lie."""
    parent = resolved.chain[stage.init]
    outcome = resolved.standing.outcome(parent, decisions[parent.name])
    return outcome.checkpoint or (resolved.chain.folder(parent) / 'LAST_CHECKPOINT').resolve()


def missing_data(resolved: Resolved, decisions: dict[str, Decision]) -> str:
    """What is missing of the data of the stages that start; empty when nothing is."""
    standing = resolved.standing
    try:
        datasets.require({s.name: standing.config(s) for s in standing.stages if decisions[s.name].starts})
    except ChainError as error:
        return str(error)
    return ''
