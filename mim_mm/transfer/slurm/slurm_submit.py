"""From a login node: a chain's stages, or a sweep's points, as Slurm jobs that wait for each other. Nothing blocks."""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mim_mm import slurm_queue
from mim_mm.transfer import datasets, identity, launch, process, rules
from mim_mm.transfer.chain import ChainError, Stage
from mim_mm.transfer.manifest import utc_now, write_json
from mim_mm.transfer.resolve import Resolved
from mim_mm.transfer.skipped import record_given
from mim_mm.transfer.slurm import scheduler as slurm
from mim_mm.transfer.slurm.slurm_job import ChainJob, require_submitit, submit
from mim_mm.transfer.words import Action, Kind, ParentState, Status

LOG = '{folder}/{job}_0_log.out'  # submitit's name


def wanted(launcher: str | None, options: Sequence[str]) -> bool:
    """Whether a call submits jobs: ``--launcher slurm`` outside an allocation; inside, steps are run as they come.

    Raises:
        ChainError: options for sbatch without that launcher.
    """
    if options and launcher != 'slurm':
        raise ChainError(f'--slurm {" ".join(options)} is for --launcher slurm; give it as well')
    return launcher == 'slurm' and not os.environ.get('SLURM_JOB_ID')


def refuse_queued(work_dir: Path) -> None:
    """Stop a call that would run stages here while jobs of the same chain are queued.

    Raises:
        ChainError: with the command that cancels them.
    """
    ids = [entry['job'] for entry in slurm.read_jobs(work_dir).values()]
    now = slurm_queue.queued() if ids else {}
    if now is None:
        if shutil.which('squeue') is None:  # no machine of that cluster: the work dir was copied
            return
        raise ChainError(
            f'squeue fails, so nobody knows whether the jobs of this chain ({", ".join(ids)}) are queued: call again '
            f'when it answers, or remove {work_dir / slurm.JOBS_FILE} if they are gone'
        )
    active = [job for job in ids if job in now]
    if active:
        raise ChainError(
            f'jobs of this chain are queued: {", ".join(active)}. Let them run, or scancel {" ".join(active)}: '
            '--launcher slurm outside an allocation adds to them what is missing'
        )


def ask_queue() -> dict[str, tuple[str, str]]:
    now = slurm_queue.queued()
    if now is None:
        raise ChainError(
            'squeue does not answer: --launcher slurm needs a login node of a Slurm cluster (elsewhere leave the '
            'option out); nothing was submitted, as what is queued already would be submitted twice'
        )
    return now


# ---- a chain


class Submission:
    """The plan of a call that submits jobs: which stages are queued, which would be, with what resources."""

    def __init__(self, resolved: Resolved):
        self.resolved = resolved
        self.call, self.standing, self.display = resolved.call, resolved.standing, resolved.display
        self.chain = resolved.chain
        self.options = slurm.read_options(self.call.slurm, [stage.base for stage in self.chain.stages])
        self.jobs = slurm.read_jobs(self.chain.work_dir)
        self.queue = ask_queue()
        self.what = {s.name: self._resources(s) for s in self.chain.stages}
        self.decisions = self._decide()
        self._new: dict[str, str] = {}  # stage -> job of this call

    def _resources(self, stage: Stage) -> slurm.Resources:
        gpus = self.call.gpus if stage.gpus is None else stage.gpus
        return slurm.resources(self.options, stage.base if stage.kind != Kind.REPORT else 'report', gpus,
                               fixed=stage.gpus is not None)  # fmt: skip

    def active(self, name: str) -> str | None:
        job = self.jobs.get(name, {}).get('job')
        return job if job in self.queue else None

    def _decide(self) -> dict[str, rules.Decision]:
        """As ``Standing.decisions``, with queued and running jobs in the place of what would have to be done."""
        decisions, outcomes = {}, {}
        for stage in self.standing.stages:
            parent = outcomes[stage.init] if stage.init else rules.Parent()
            job = self.active(stage.name)
            if job:
                self._check_same(stage, job)
                state, reason = self.queue[job]
                because = f' ({reason})' if reason not in ('None', '') else ''
                decisions[stage.name] = rules.Decision(Action.QUEUED, f'job {job} is {state}{because}')
                outcomes[stage.name] = rules.Parent(ParentState.PENDING, stage.name)
                continue
            decisions[stage.name] = decision = rules.decide(self.standing.facts(stage, parent))
            if decision.action == Action.ADOPT:
                raise ChainError(f'stage {stage.name!r} runs on this machine: {decision.reason}, or stop it')
            outcomes[stage.name] = self.standing.outcome(stage, decision)
        return decisions

    def _check_same(self, stage: Stage, job: str) -> None:
        """A queued job has the settings it was submitted with; refuse a call that means others."""
        if stage.name in self.standing.forced:
            raise ChainError(f'--rerun {stage.name}: it is queued already; scancel {job} first')
        if self.jobs[stage.name].get('config_sha256') != identity.digest(self.standing.learned(stage)):
            raise ChainError(
                f'stage {stage.name!r} is queued as job {job}, but its config has changed; scancel {job} and call '
                'again, or let it run with what it was submitted with'
            )

    def to_submit(self, stage: Stage) -> bool:
        decision, record = self.decisions[stage.name], self.standing.record(stage)[0]
        due = record is not None and any(a.name not in record.artifacts for a in stage.artifacts)
        return decision.starts or (decision.action == Action.SKIP and due)

    def groups(self) -> list[list[Stage]]:
        """Stages that become one job, or the array of one stage's seeds; those that can start apart from the others."""

        def key(stage):
            return stage.base, bool(stage.init) and not self._ready(stage.init)

        return [list(group) for _, group in itertools.groupby(filter(self.to_submit, self.standing.stages), key=key)]

    def job(self, names: list[str], what: slurm.Resources) -> ChainJob:
        call = dict(
            chain=str(self.chain.path), work_dir=str(self.chain.work_dir.resolve()), gpus=what.tasks, only=names,
            cfg_options=list(self.call.cfg_options), data_root=list(self.call.data_root), launcher='slurm',
            auto_scale_lr=self.call.auto_scale_lr, allow_change=list(self.call.allow_change),
            trust_pickle=self.call.trust_pickle, log=list(self.call.log),
        )  # fmt: skip
        if what.gpus_per_node == 0 and what.tasks == 1:
            call['gpus'] = 0
        forced = [name for name in names if name in self.standing.forced]
        return ChainJob(call, True, forced, what.requeues, float(what.grace_s))

    def submit_all(self) -> list[str]:
        """Submit what is to be submitted; every id is on the disk before the next job is asked for."""
        folder = self.chain.work_dir / 'slurm'
        new: list[str] = []
        for group in self.groups():
            what = self.what[group[0].name]
            when = slurm.dependency([self.active(s.init) or self._new.get(s.init) if s.init else None for s in group])
            name = f'{self.chain.name}-{group[0].base}'
            ids = submit(folder, name, [self.job([s.name], what) for s in group], what, when)
            for stage, job in zip(group, ids):
                self._new[stage.name] = job
                self._note(stage.name, job, config_sha256=identity.digest(self.standing.learned(stage)))
            new += ids
            array = f'array of {len(ids)}, ' if len(ids) > 1 else ''
            self.display.say(f'[{group[0].base}] {array}job {", ".join(ids)}: {what}{f", {when}" if when else ""}')
        return new + self._submit_report(folder, new)

    def _submit_report(self, folder: Path, new: list[str]) -> list[str]:
        report = next((s for s in self.chain.stages if s.kind == Kind.REPORT), None)
        record = self.standing.record(report)[0] if report else None
        if report is None or (not new and (self.active(report.name) or (record and record.status == Status.DONE))):
            return []
        known = [job for job in map(self.active, self.chain_names()) if job]
        what, when = self.what[report.name], slurm.after_all([*known, *new])
        ids = submit(folder, f'{self.chain.name}-{report.name}', [self.job([report.name], what)], what, when)
        self._note(report.name, ids[0])
        self.display.say(f'[{report.name}] job {ids[0]}: {what}{f", {when}" if when else ""}')
        return ids

    def chain_names(self) -> list[str]:
        return [stage.name for stage in self.chain.stages]

    def _note(self, name: str, job: str, **more: Any) -> None:
        log = LOG.format(folder='slurm', job=job)
        self.jobs[name] = dict(job=job, log=log, submitted=utc_now(), **more)
        slurm.write_jobs(self.chain.work_dir, self.jobs)

    def say_plan(self) -> None:
        self.display.say(f'chain {self.chain.name} in {self.chain.work_dir}, through Slurm')
        width = max(map(len, self.chain_names()))
        for stage in self.standing.stages:
            decision = self.decisions[stage.name]
            last = self.jobs.get(stage.name, {}).get('job')
            note = ''
            if last and last not in self.queue and decision.action not in (Action.SKIP, Action.GIVEN):
                note = f' (job {last}: {slurm.how_it_ended(last)})'
            self.display.say(f'  {stage.name:{width}}  {decision.action:7}  {decision.reason}{note}')

    def check(self) -> bool:
        """Say the plan and refuse what cannot work; whether a stage is blocked."""
        self.say_plan()
        stages = [stage for stage in self.standing.stages if self.to_submit(stage)]
        for stage in stages:
            launch.check_handover(stage, self.standing.config(stage))
        datasets.require({stage.name: self.standing.config(stage) for stage in stages})
        return any(decision.action == Action.BLOCKED for decision in self.decisions.values())

    def say_commands(self) -> None:
        """What would be submitted, for ``--dry-run``."""
        for group in self.groups():
            names, first = [s.name for s in group], group[0]
            what, waits = self.what[first.name], sorted({s.init for s in group if s.init and not self._ready(s.init)})
            after = f', after {", ".join(waits)}' if waits else ''
            array = 'one array of ' if len(group) > 1 else ''
            self.display.say(f'would submit {array}{", ".join(names)}: {what}{after}')
            folder = self.chain.folder(first)
            parent = self.chain.folder(first.init) / 'LAST_CHECKPOINT' if first.init else None
            command = launch.train_command(
                first, folder, gpus=self.job(names, what).call['gpus'], launcher=first.launcher or 'slurm',
                parent=parent, resume=self.decisions[first.name].resume, scripts=self.resolved.scripts,
                auto_scale_lr=self.call.auto_scale_lr, allow_change=self.call.allow_change,
                trust_pickle=self.call.trust_pickle, log=self.call.log,
            )  # fmt: skip
            self.display.say(f'    $ {" ".join(command)}')

    def _ready(self, name: str) -> bool:
        return self.decisions[name].action in (Action.SKIP, Action.GIVEN, Action.LEFT)


def plan_jobs(resolved: Resolved) -> Submission:
    """What a call would submit.

    Raises:
        ChainError: submitit or Slurm is not there, an option means nothing, or a queued job has other settings.
    """
    require_submitit()
    return Submission(resolved)


def submit_chain(planned: Submission) -> int:
    """Submit what a chain lacks, or with ``dry_run`` say what that is.

    Returns:
        0, or 1 when a stage is blocked and so was not submitted.

    Raises:
        ChainError: nothing can be submitted, or (naming what was) not everything.
    """
    if planned.call.dry_run:
        blocked = planned.check()
        planned.say_commands()
        return int(blocked)
    chain, standing, display = planned.chain, planned.standing, planned.display
    with process.WorkDirLock(chain.work_dir):
        submission = Submission(planned.resolved)  # once more: two calls at once must not see the same gap
        blocked = submission.check()
        write_json(chain.work_dir / 'chain.json', dict(chain.summary(), updated=utc_now()))
        for stage in standing.stages:
            if submission.decisions[stage.name].action == Action.GIVEN:
                record_given(standing, stage, display)
        try:
            new = submission.submit_all()
        finally:
            standing.cache.save()
    active = [job for job in map(submission.active, submission.chain_names()) if job]
    if not new:
        display.say('nothing to submit')
    for line in slurm.hints([*active, *new]) if new or active else ():
        display.say(line)
    display.say(f'jobs: {chain.work_dir / slurm.JOBS_FILE}; their output: {chain.work_dir / "slurm"}')
    return int(blocked)
