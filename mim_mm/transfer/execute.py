"""Running a chain: stages start when their parent is ready and a place is free; whatever fails, the rest goes on."""

from __future__ import annotations

import signal
import subprocess
import time

from mim_mm.runs import move_aside
from mim_mm.transfer import launch, plan, process
from mim_mm.transfer.chain import ChainError, Stage
from mim_mm.transfer.display import Display, metrics_text, progress_text, span
from mim_mm.transfer.job import Job, make_artifacts_only, release, spawn
from mim_mm.transfer.manifest import Record, tail, utc_now, write_json
from mim_mm.transfer.survey import Survey

POLL_S = 0.2
STOPPED_CODE = 75  # EX_TEMPFAIL, as of a training that was asked to stop (mim_mm.engine.stop.stop_hook)
GRACE_S = 30.0  # how long a stage may take to stop after SIGTERM


class Execution:
    """One call's run of a chain.

    Args:
        survey: the call's view of the chain.
        lock: held for the work dir.
        jobs: how many stages run side by side.
        gpus, launcher: for stages that do not say themselves.
        report: whether the report is made in the end.
    """

    def __init__(
        self,
        survey: Survey,
        lock: process.WorkDirLock,
        display: Display,
        *,
        jobs: int = 1,
        gpus: int = 1,
        launcher: str | None = None,
        scripts: launch.Scripts | None = None,
        grace_s: float = GRACE_S,
        report: bool = True,
    ):
        self.with_report = report
        self.paused = False  # a stage was asked to stop, as before the end of an allocation: nothing new starts
        self.survey, self.lock, self.display = survey, lock, display
        self.jobs, self.gpus, self.launcher, self.scripts = jobs, gpus, launcher, scripts or launch.Scripts.default()
        self.grace_s = grace_s
        self.devices = launch.visible_devices() if jobs > 1 else []
        self.waiting: list[Stage] = list(survey.stages)
        self.running: dict[int, Job] = {}  # slot -> job
        self.outcomes: dict[str, plan.Parent] = {}
        self.problems: dict[str, str] = {}
        self.signal: int | None = None

    def run(self) -> int:
        """Run what is to be run, then the report.

        Returns:
            0 when all went well, 1 when a stage failed or was blocked, 75 when a stage was asked to stop and saved its
            work, 128 + signal when the chain was stopped.
        """
        chain = self.survey.chain
        write_json(chain.work_dir / 'chain.json', dict(chain.summary(), updated=utc_now()))
        before = self._listen()
        try:
            while (self.waiting or self.running) and self.signal is None:
                self._start_ready()
                self._poll()
                self.display.progress(progress_text(job.label, job.progress()) for job in self.running.values())
                self.lock.beat()
                if self.running:
                    time.sleep(POLL_S)
            if self.signal is not None:
                self._stop_all()
                return 128 + self.signal
            if not self.paused:
                self._report()
            # A signal that arrives during the report stops the report only.
        except BaseException:
            self._stop_all()
            raise
        finally:
            self.survey.cache.save()
            for sign, handler in before.items():
                signal.signal(sign, handler)
        return self._conclude()

    # ---- starting

    def _start_ready(self) -> None:
        """Settle or start every waiting stage whose parent is settled, as far as places are free."""
        for stage in list(self.waiting):
            if stage.init and stage.init not in self.outcomes:
                continue
            if len(self.running) >= self.jobs:
                return
            parent = self.outcomes[stage.init] if stage.init else plan.Parent()
            decision = plan.decide(self.survey.facts(stage, parent))
            self.waiting.remove(stage)
            if decision.starts:
                self._start(stage, decision, parent)
            else:
                self._settle(stage, decision, parent)

    def _start(self, stage: Stage, decision: plan.Decision, parent: plan.Parent) -> None:
        slot = min(set(range(self.jobs)) - set(self.running))
        gpus = self.gpus if stage.gpus is None else stage.gpus
        job = Job(self.survey, stage, decision, parent, slot)
        earlier = job.record.gpus
        env = launch.environment(slot, self.jobs, gpus, self.devices)
        try:
            aside = job.start(gpus, stage.launcher or self.launcher, self.scripts, env)
        except OSError as error:  # a full disk, a command that is not there: this stage fails, the others go on
            self._fail(stage, f'could not be started: {error}')
            return
        self.running[slot] = job
        self.display.say(f'[{stage.name}] {decision.action}: {decision.reason}')
        if aside:
            self.display.say(f'[{stage.name}] the earlier run was moved to {aside}')
        if decision.action == plan.RESUME and earlier not in (0, gpus):
            self.display.say(f'[{stage.name}] note: so far on {earlier} devices, now on {gpus}; check the total batch')
        self.display.say(f'[{stage.name}] log: {job.log}')

    def _settle(self, stage: Stage, decision: plan.Decision, parent: plan.Parent) -> None:
        """A stage that does not run: what its children may count on, and what the report shall know."""
        self.display.say(f'[{stage.name}] {decision.action}: {decision.reason}')
        if decision.action == plan.BLOCKED:
            self.problems[stage.name] = decision.reason
            if parent.state == plan.BROKEN:
                self._write_skipped(stage, error=f'blocked: {decision.reason}')
        elif decision.action == plan.GIVEN:
            self._take_given(stage)
        elif decision.action == plan.SKIP and stage.artifacts:
            slot = min(set(range(self.jobs)) - set(self.running))
            job = make_artifacts_only(self.survey, stage, slot)
            if job:
                self.running[slot] = job
                return  # its children wait, as they would after a run
        self.outcomes[stage.name] = self.survey.outcome(stage, decision)

    def _take_given(self, stage: Stage) -> None:
        """Record that a checkpoint takes the stage's place; an earlier run is moved, unless it holds that."""
        checkpoint, folder = self.survey.given_checkpoint(stage), self.survey.chain.folder(stage)
        if folder.resolve() not in checkpoint.resolve().parents:
            self._write_skipped(stage, checkpoint=str(checkpoint))

    def _write_skipped(self, stage: Stage, **content) -> None:
        folder = self.survey.chain.folder(stage)
        facts_used = folder.is_dir() and any(path.name != 'run.json' for path in folder.iterdir())
        if facts_used:
            self.display.say(f'[{stage.name}] the earlier run was moved to {move_aside(folder)}')
        folder.mkdir(parents=True, exist_ok=True)
        record = Record(self.survey.chain.name, stage.name, stage.kind, stage.arm, stage.seed, 'skipped', **content)
        record.finished = utc_now()
        record.write(folder)

    # ---- running and ending

    def _poll(self) -> None:
        for slot, job in list(self.running.items()):
            if job.poll():
                del self.running[slot]
                self._ended(job)

    def _ended(self, job: Job) -> None:
        stage, record = job.stage, job.record
        for name, error in record.artifact_errors.items():
            self.display.say(f'[{stage.name}] artifact {name} failed, the stage stands: {error}')
        if record.status == 'done':
            loss = record.progress.get('loss')
            measured = metrics_text(record.metrics) or (f'loss {loss:.4g}' if loss is not None else '')
            self.display.say(f'[{stage.name}] done in {span(record.wall_s)}  {measured}')
            self.outcomes[stage.name] = self.survey.outcome(stage, plan.Decision(plan.SKIP, 'done'))
        elif record.status == 'interrupted':
            self.display.say(f'[{stage.name}] {record.error}')
            self.paused, self.waiting = True, []
        else:
            self._fail(stage, record.error or 'failed')

    def _fail(self, stage: Stage, error: str) -> None:
        self.display.say(f'[{stage.name}] FAILED: {error}')
        self.problems[stage.name] = error.splitlines()[0]
        self.outcomes[stage.name] = plan.Parent(plan.BROKEN, stage.name, why=f'parent {stage.name} failed')

    def _report(self) -> None:
        """The report runs last and always, because it is where failures are shown."""
        stage = next((s for s in self.survey.chain.stages if s.kind == 'report'), None)
        if stage is None or not self.with_report:
            return
        chain = self.survey.chain
        folder, command = chain.folder(stage), launch.report_command(chain.work_dir)
        folder.mkdir(parents=True, exist_ok=True)
        record = Record(chain.name, stage.name, stage.kind, stage.arm, stage.seed, 'running', command=command)
        record.started, begun = utc_now(), time.monotonic()
        record.write(folder)
        log = folder / 'chain.log'
        child = spawn(command, log, launch.environment(0, 1, 1, []))
        release(child)
        while child.poll() is None:
            if self.signal is not None:
                process.stop_group(child.pid, self.grace_s)
            time.sleep(POLL_S / 4)
        record.exit_code, record.finished = child.returncode, utc_now()
        record.wall_s = round(time.monotonic() - begun, 1)
        record.status = 'failed' if child.returncode else 'done'
        record.error = tail(log) if child.returncode else None
        pages = {name: f'../{name}' for name in ('report.html', 'report.md') if (chain.work_dir / name).is_file()}
        record.artifacts = {} if child.returncode else pages
        record.write(folder)
        if child.returncode:
            self.display.say(f'[{stage.name}] FAILED (exit code {child.returncode}), log {log}:\n{record.error}')
            self.problems[stage.name] = f'exit code {child.returncode}'
        else:
            self.display.say(f'[{stage.name}] {", ".join(str(chain.work_dir / name) for name in pages)}')

    def _conclude(self) -> int:
        if self.signal is not None:
            return 128 + self.signal
        if self.paused:
            self.display.say('the same command goes on from the last checkpoints')
            return STOPPED_CODE
        if not self.problems:
            self.display.say(f'chain {self.survey.chain.name}: {self._standing()}, in {self.survey.chain.work_dir}')
            return 0
        self.display.say(f'chain {self.survey.chain.name}: {len(self.problems)} problem(s), {self._standing()}')
        for name, problem in self.problems.items():
            self.display.say(f'  {name}: {problem}')
        self.display.say('the same command goes on where it can')
        return 1

    def _standing(self) -> str:
        """How far the chain is, whoever ran its stages and when: done is what a call of all stages would not touch."""
        try:
            decisions = self.survey.of_all_stages().plan()
        except ChainError as error:  # a stage of no concern to this call has a config that cannot be read
            return f'what was selected is done; of the others nothing is known: {error}'
        trained = {name: found for name, found in decisions.items() if found.action != plan.GIVEN}
        lacking = {name: found.reason for name, found in trained.items() if found.action != plan.SKIP}
        if not lacking:
            return 'all stages done'
        rest = '; '.join(f'{name}: {reason}' for name, reason in lacking.items())
        return f'{len(trained) - len(lacking)} of {len(trained)} stages done (not done: {rest})'

    # ---- being stopped

    def _listen(self) -> dict[int, object]:
        """Remember SIGINT, SIGTERM and (unless started with nohup) SIGHUP instead of dying of them."""
        before = {}
        for sign in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            old = signal.getsignal(sign)
            if sign != signal.SIGHUP or old != signal.SIG_IGN:
                before[sign] = signal.signal(sign, self._on_signal)
        return before

    def _on_signal(self, number, frame) -> None:
        if self.signal is not None:  # the second one: do not wait any longer
            self.grace_s = 0.0
        self.signal = number

    def _stop_all(self) -> None:
        """Ask every stage to stop, give it time, then make it; what they were is written down as interrupted."""
        name = signal.Signals(self.signal).name if self.signal is not None else 'an error in transfer.py'
        jobs = list(self.running.values())
        if jobs:
            self.display.say(f'{name}: stopping {", ".join(job.stage.name for job in jobs)} (again to stop at once)')
        for job in jobs:
            if job.pid is not None:
                process.signal_group(job.pid, signal.SIGTERM)
        end = time.monotonic() + self.grace_s
        for job in jobs:
            if job.pid is not None:
                while process.group_members(job.pid) and time.monotonic() < end and self.grace_s > 0:
                    _reap(job.child)
                    time.sleep(0.05)
                process.stop_group(job.pid, grace_s=0.0)
                _reap(job.child)
            job.interrupt(f'stopped by {name}')
        self.running.clear()
        self.display.say('stopped; the same command goes on from the last checkpoints')


def _reap(child: subprocess.Popen | None) -> None:
    if child is not None:
        child.poll()
