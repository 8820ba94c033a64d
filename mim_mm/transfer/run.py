"""What ``tools/transfer.py`` does: read the chain, say what will happen, refuse what cannot work, run the rest."""

from __future__ import annotations

import dataclasses
import os
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mim_mm.compat.internals import parse_option
from mim_mm.transfer import datasets, launch, plan, process
from mim_mm.transfer.chain import LAUNCHERS, Chain, ChainError, Stage, load_chain, unknown
from mim_mm.transfer.compare import compare_check
from mim_mm.transfer.display import Display
from mim_mm.transfer.execute import GRACE_S, Execution
from mim_mm.transfer.identity import data_roots
from mim_mm.transfer.slurm import slurm_submit
from mim_mm.transfer.survey import Survey

CACHE_FILE = 'digests.json'


@dataclasses.dataclass
class Call:
    """One call of the chain; the fields are the options of ``tools/transfer.py``."""

    chain: str
    gpus: int = 1
    jobs: int = 1
    work_dir: str | None = None
    only: Sequence[str] = ()
    start_from: str | None = None
    rerun: Sequence[str] = ()
    skip_pretrain: Sequence[str] = ()  # CHECKPOINT, or STAGE=CHECKPOINT
    dry_run: bool = False
    cfg_options: Sequence[str] = ()  # STAGE.key=value
    data_root: Sequence[str] = ()  # NAME=DIR
    launcher: str | None = None
    auto_scale_lr: bool = False
    slurm: Sequence[str] = ()  # [STAGE.]key=value, for sbatch


def run_chain(
    call: Call,
    display: Display | None = None,
    scripts: launch.Scripts | None = None,
    grace_s: float = GRACE_S,
    as_job: bool = False,
) -> int:
    """Run a chain, or with ``dry_run`` say what a run would do and write nothing.

    With ``launcher='slurm'`` outside an allocation the stages are submitted instead, and nothing is waited for.

    Args:
        as_job: the call is one Slurm job of several of the chain: it runs its ``only`` stages under its own lock.

    Returns:
        0: all went well. 1: a stage failed or was blocked. 75: a stage was asked to stop and can go on. 130, 143:
        stopped by Ctrl-C, SIGTERM.

    Raises:
        ChainError: the call cannot work; nothing was started.
    """
    display = display or Display()
    scripts = scripts or launch.Scripts.default()
    roots = set_data_roots(call.data_root)
    chain = with_options(load_chain(call.chain, call.work_dir), call.cfg_options)
    check_call(call)
    cache = datasets.DigestCache(chain.work_dir / CACHE_FILE, display.say)
    survey = Survey(
        chain,
        cache,
        selected=selection(chain, call.only, call.start_from),
        given=given_checkpoints(chain, call.skip_pretrain),
        forced=[stage.name for stage in chain.select(call.rerun)],
        auto_scale_lr=call.auto_scale_lr,
    )
    check_data_roots_used(survey, roots)
    comparison = compare_check.check(survey)
    if slurm_submit.wanted(call.launcher, call.slurm):
        return slurm_submit.submit_chain(call, survey, display, scripts)
    decisions = survey.plan()
    commands = planned_commands(survey, decisions, call, scripts)
    show_plan(survey, decisions, commands, display, call.dry_run)
    missing = missing_data(survey, decisions)
    if call.dry_run:
        display.say(missing or 'data: everything planned stages read is there')
        return 0
    if missing:
        raise ChainError(missing)
    refuse_strangers(survey, decisions)
    if not as_job:
        slurm_submit.refuse_queued(chain.work_dir)
    lock_file = f'transfer.{"+".join(call.only)}.lock' if as_job else process.LOCK_FILE
    with process.WorkDirLock(chain.work_dir, lock_file) as lock:
        compare_check.write(survey, comparison)
        return Execution(
            survey, lock, display,
            jobs=call.jobs, gpus=call.gpus, launcher=call.launcher, scripts=scripts, grace_s=grace_s,
            report=not as_job or 'report' in {chain[name].kind for name in survey.selected or ()},
        ).run()  # fmt: skip


# ---- reading the call


def check_call(call: Call) -> None:
    """Refuse numbers and names that mean nothing."""
    if call.jobs < 1:
        raise ChainError(f'--jobs {call.jobs} must be at least 1')
    if call.gpus < 0:
        raise ChainError(f'--gpus {call.gpus} must be 0 (one process on the CPU) or more')
    if call.launcher is not None and call.launcher not in LAUNCHERS:
        raise unknown('launcher', call.launcher, LAUNCHERS, '--launcher')
    if call.jobs > 1 and call.launcher not in ('slurm', 'mpi'):
        launch.check_devices(call.jobs, call.gpus, launch.visible_devices())


def set_data_roots(items: Sequence[str]) -> dict[str, str]:
    """``imagenet=DIR`` -> IMAGENET_ROOT=DIR in the environment, where the configs and all stages look for it."""
    roots = {}
    for item in items:
        name, equals, folder = item.partition('=')
        if not equals or not re.fullmatch(r'[A-Za-z]\w*', name) or not folder:
            raise ChainError(f'--data-root {item!r} must be NAME=DIR, e.g. imagenet=/data/imagenet coco=/data/coco')
        roots[f'{name.upper()}_ROOT'] = os.path.abspath(os.path.expanduser(folder))
    os.environ.update(roots)
    return roots


def check_data_roots_used(survey: Survey, roots: dict[str, str]) -> None:
    """A root that no config asks for is a misspelt name, and would leave the stages on their default."""
    used = [root for stage in survey.stages for root in data_roots(survey.config(stage).to_dict())] if roots else []
    for name, folder in roots.items():
        if not any(Path(os.path.abspath(root)).is_relative_to(folder) for root in used):
            raise ChainError(f'--data-root: no config of this chain reads {name}; they read {", ".join(set(used))}')


def with_options(chain: Chain, items: Sequence[str]) -> Chain:
    """The chain with ``STAGE.key=value`` options added to its stages, over those of the config."""
    added: dict[str, dict[str, Any]] = {}
    for item in items:
        path, equals, value = item.partition('=')
        name, dot, key = path.partition('.')
        if not equals or not dot or not key:
            raise ChainError(f'--cfg-options {item!r} must be STAGE.key=value, e.g. linear.train_cfg.max_epochs=10')
        for stage in chain.select([name]):
            if stage.config is None:
                raise ChainError(f'--cfg-options {item!r}: stage {stage.name!r} has no config')
            added.setdefault(stage.name, {})[key] = parse_option(value)
    stages = [dataclasses.replace(s, options={**s.options, **added.get(s.name, {})}) for s in chain.stages]
    return dataclasses.replace(chain, stages=tuple(stages))


def selection(chain: Chain, only: Sequence[str], start_from: str | None) -> list[str] | None:
    """Names of the stages that may run; None for all of them."""
    if only and start_from:
        raise ChainError('--only and --from cannot both be given: name the stages, or the first of them')
    if only:
        return [stage.name for stage in chain.select(only)]
    if start_from:
        first = chain.select([start_from])[0]
        return [stage.name for stage in chain.stages[chain.stages.index(first) :]]
    return None


def given_checkpoints(chain: Chain, items: Sequence[str]) -> dict[str, Path]:
    """Which checkpoint takes the place of which pretraining stage."""
    pretraining = {stage.name: stage for stage in chain.stages if stage.kind == 'pretrain'}
    given: dict[str, Path] = {}
    for item in items:
        name, equals, path = item.partition('=')
        if not equals or name not in pretraining:
            path = item
            if len(pretraining) != 1:
                names = ', '.join(pretraining) or 'none'
                raise ChainError(f'--skip-pretrain {item}: say which stage, STAGE=CHECKPOINT; this chain has {names}')
            name = next(iter(pretraining))
        if not Path(path).is_file():
            raise ChainError(f'--skip-pretrain: there is no checkpoint {path!r}')
        given[name] = Path(path).resolve()
    return given


# ---- what will happen


def planned_commands(
    survey: Survey, decisions: dict[str, plan.Decision], call: Call, scripts: launch.Scripts
) -> dict[str, list[str]]:
    """The command of every stage that starts; building them all finds what is wrong with the last one now."""
    commands = {}
    for stage in survey.stages:
        if not decisions[stage.name].starts:
            continue
        launch.check_handover(stage, survey.config(stage))
        for artifact in stage.artifacts:
            launch.artifact_command(artifact, stage, survey.chain.folder(stage), Path('checkpoint'))
        commands[stage.name] = launch.train_command(
            stage,
            survey.chain.folder(stage),
            gpus=call.gpus if stage.gpus is None else stage.gpus,
            launcher=stage.launcher or call.launcher,
            parent=parent_checkpoint(survey, stage, decisions) if stage.init else None,
            resume=decisions[stage.name].resume,
            auto_scale_lr=call.auto_scale_lr,
            scripts=scripts,
        )
    return commands


def parent_checkpoint(survey: Survey, stage: Stage, decisions: dict[str, plan.Decision]) -> Path:
    """The parent's checkpoint where it is known already, else where it will lie."""
    parent = survey.chain[stage.init]
    outcome = survey.outcome(parent, decisions[parent.name])
    return outcome.checkpoint or (survey.chain.folder(parent) / 'LAST_CHECKPOINT').resolve()


def show_plan(
    survey: Survey, decisions: dict[str, plan.Decision], commands: dict[str, list[str]], display: Display, long: bool
) -> None:
    """One line a stage; with ``long`` also what it reads and its command."""
    chain = survey.chain
    display.say(f'chain {chain.name} in {chain.work_dir}')
    width = max(len(stage.name) for stage in chain.stages)
    for stage in chain.stages:
        if stage.kind == 'report':
            display.say(f'  {stage.name:{width}}  run      always, last')
            if long:
                display.say(f'      $ {shlex.join(launch.report_command(chain.work_dir))}')
            continue
        decision = decisions[stage.name]
        display.say(f'  {stage.name:{width}}  {decision.action:7}  {decision.reason}')
        if not long:
            continue
        if stage.checkpoint:
            display.say(f'      weights {stage.checkpoint}')
            continue
        sources = datasets.sources(survey.config(stage).to_dict()).values()
        display.say(f'      config  {stage.config}')
        display.say(f'      weights {f"from {stage.init}" if stage.init else "random"}')
        display.say(f'      data    {", ".join(dict.fromkeys(map(str, sources))) or "made by the dataset itself"}')
        if stage.name in commands:
            display.say(f'      $ {shlex.join(commands[stage.name])}')


def missing_data(survey: Survey, decisions: dict[str, plan.Decision]) -> str:
    """What is missing of the data of the stages that start; empty when nothing is."""
    try:
        datasets.require({s.name: survey.config(s) for s in survey.stages if decisions[s.name].starts})
    except ChainError as error:
        return str(error)
    return ''


def refuse_strangers(survey: Survey, decisions: dict[str, plan.Decision]) -> None:
    """Stop when a stage left by an earlier call still runs and is not what this call wants.

    Raises:
        ChainError: with the command that stops it.
    """
    for stage in survey.stages:
        decision, record = decisions[stage.name], survey.record(stage)[0]
        if decision.action == plan.BLOCKED and any(survey.running(stage, record)):
            raise ChainError(
                f'stage {stage.name!r}: {decision.reason}. Wait for it, or stop it on {record.process["host"]} with '
                f'"kill -TERM -- -{record.process["pid"]}" (its last checkpoint stays), then call again'
            )
