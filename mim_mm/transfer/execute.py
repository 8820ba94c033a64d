"""Running a chain: stages start when their parent is ready and a place is free; whatever fails, the rest goes on."""

from __future__ import annotations

import signal
import subprocess
import time

from mim_mm.transfer import launch, process, rules
from mim_mm.transfer.chain import ChainError, Stage
from mim_mm.transfer.display import metrics_text, progress_text, span
from mim_mm.transfer.job import LOG_FILE, Job, make_artifacts_only, release, spawn
from mim_mm.transfer.manifest import Record, tail, utc_now, write_json
from mim_mm.transfer.resolve import Resolved
from mim_mm.transfer.skipped import record_given, record_skipped
from mim_mm.transfer.words import Action, Kind, ParentState, Status

NAMED = 8  # unfinished stages that the last line names; a chain of an evidence study has hundreds
POLL_S = 0.2
STOPPED_CODE = 75  # EX_TEMPFAIL, as of a training that was asked to stop (mim_mm.engine.stop.stop_hook)


class Execution:
    """One call's run of a chain.

    Args:
        resolved: the call and how its chain stands.
        lock: held for the work dir.
    """

    def __init__(self, resolved: Resolved, lock: process.WorkDirLock):
        call = resolved.call
        self.standing, self.lock, self.display = resolved.standing, lock, resolved.display
        # devices and launcher of stages that do not say themselves
        self.jobs, self.gpus, self.launcher, self.scripts = call.jobs, call.gpus, call.launcher, resolved.scripts
        self.grace_s = call.grace_s
        self.paused = False  # a stage was asked to stop, as before the end of an allocation: nothing new starts
        # A Slurm job of one stage leaves the report to the job of the report.
        self.with_report = not call.as_job or any(
            resolved.chain[name].kind == Kind.REPORT for name in self.standing.selected or ()
        )
        self.devices = launch.visible_devices() if self.jobs > 1 else []
        self.waiting: list[Stage] = list(self.standing.stages)
        self.running: dict[int, Job] = {}  # slot -> job
        self.outcomes: dict[str, rules.Parent] = {}
        self.problems: dict[str, str] = {}
        self.signal: int | None = None

    def run(self) -> int:
        """Run what is to be run, then the report.

        Returns:
            0 when all went well, 1 when a stage failed or was blocked, 75 when a stage was asked to stop and saved its
            work, 128 + signal when the chain was stopped.
        """
        chain = self.standing.chain
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
            self.standing.cache.save()
            for sign, handler in before.items():
                signal.signal(sign, handler)
        return self._conclude()

    # ---- starting

    def _start_ready(self) -> None:
        """Settle or start every waiting stage whose parent is settled, as far as places are free."""
        while len(self.running) < self.jobs:
            stage = self._next()
            if stage is None:
                return
            parent = self.outcomes[stage.init] if stage.init else rules.Parent()
            decision = rules.decide(self.standing.facts(stage, parent))
            self.waiting.remove(stage)
            if decision.starts:
                self._start(stage, decision, parent)
            else:
                self._settle(stage, decision, parent)

    def _next(self) -> Stage | None:
        """What is made from weights that are there goes before further pretraining: a study that is cut off has the
        figures of what it pretrained. Else in the order of the chain."""
        ready = [stage for stage in self.waiting if not stage.init or stage.init in self.outcomes]
        return min(ready, key=lambda stage: stage.init is None, default=None)

    def _start(self, stage: Stage, decision: rules.Decision, parent: rules.Parent) -> None:
        slot = min(set(range(self.jobs)) - set(self.running))
        gpus = self.gpus if stage.gpus is None else stage.gpus
        job = Job(self.standing, stage, decision, parent, slot)
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
        if decision.action == Action.RESUME and earlier not in (0, gpus):
            word = 'its batch must stay, or its rate follow (--auto-scale-lr)'
            self.display.say(f'[{stage.name}] note: so far on {earlier} devices, now on {gpus}; {word}')
        self.display.say(f'[{stage.name}] log: {job.log}')

    def _settle(self, stage: Stage, decision: rules.Decision, parent: rules.Parent) -> None:
        """A stage that does not run: what its children may count on, and what the report shall know."""
        if decision.action != Action.LEFT:  # the plan has counted those
            self.display.say(f'[{stage.name}] {decision.action}: {decision.reason}')
        if decision.action == Action.BLOCKED:
            self.problems[stage.name] = decision.reason
            if parent.state == ParentState.BROKEN:
                record_skipped(self.standing, stage, self.display, error=f'blocked: {decision.reason}')
        elif decision.action == Action.GIVEN:
            record_given(self.standing, stage, self.display)
        elif decision.action == Action.SKIP and stage.artifacts:
            slot = min(set(range(self.jobs)) - set(self.running))
            job = make_artifacts_only(self.standing, stage, slot)
            if job:
                self.running[slot] = job
                return  # its children wait, as they would after a run
        self.outcomes[stage.name] = self.standing.outcome(stage, decision)

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
        if record.status == Status.DONE:
            loss = record.progress.get('loss')
            measured = metrics_text(record.metrics) or (f'loss {loss:.4g}' if loss is not None else '')
            self.display.say(f'[{stage.name}] done in {span(record.wall_s)}  {measured}')
            self.outcomes[stage.name] = self.standing.outcome(stage, rules.Decision(Action.SKIP, 'done'))
        elif record.status == Status.INTERRUPTED:
            self.display.say(f'[{stage.name}] {record.error}')
            self.paused, self.waiting = True, []
        else:
            self._fail(stage, record.error or 'failed')

    def _fail(self, stage: Stage, error: str) -> None:
        self.display.say(f'[{stage.name}] FAILED: {error}')
        self.problems[stage.name] = error.splitlines()[0]
        self.outcomes[stage.name] = rules.Parent(ParentState.BROKEN, stage.name, why=f'parent {stage.name} failed')

    def _report(self) -> None:
        """The report runs last and always, because it is where failures are shown."""
        stage = next((s for s in self.standing.chain.stages if s.kind == Kind.REPORT), None)
        if stage is None or not self.with_report:
            return
        chain = self.standing.chain
        folder, command = chain.folder(stage), launch.report_command(chain.work_dir)
        folder.mkdir(parents=True, exist_ok=True)
        record = Record(chain.name, stage.name, stage.kind, stage.arm, stage.seed, Status.RUNNING, command=command)
        record.started, begun = utc_now(), time.monotonic()
        record.write(folder)
        log = folder / LOG_FILE
        child = spawn(command, log, launch.environment(0, 1, 1, []))
        release(child)
        while child.poll() is None:
            if self.signal is not None:
                process.stop_group(child.pid, self.grace_s)
            time.sleep(POLL_S / 4)
        record.exit_code, record.finished = child.returncode, utc_now()
        record.wall_s = round(time.monotonic() - begun, 1)
        record.status = Status.FAILED if child.returncode else Status.DONE
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
            self.display.say(f'chain {self.standing.chain.name}: {self._how_far()}, in {self.standing.chain.work_dir}')
            return 0
        self.display.say(f'chain {self.standing.chain.name}: {len(self.problems)} problem(s), {self._how_far()}')
        for name, problem in self.problems.items():
            self.display.say(f'  {name}: {problem}')
        self.display.say('the same command goes on where it can')
        return 1

    def _how_far(self) -> str:
        """How far the chain is, whoever ran its stages and when: done is what a call of all stages would not touch."""
        try:
            decisions = self.standing.of_all_stages().decisions()
        except ChainError as error:  # a stage of no concern to this call has a config that cannot be read
            return f'what was selected is done; of the others nothing is known: {error}'
        trained = {name: found for name, found in decisions.items() if found.action != Action.GIVEN}
        lacking = {name: found.reason for name, found in trained.items() if found.action != Action.SKIP}
        if not lacking:
            return 'all stages done'
        rest = '; '.join(f'{name}: {reason}' for name, reason in list(lacking.items())[:NAMED])
        rest += f'; and {len(lacking) - NAMED} more' if len(lacking) > NAMED else ''
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
