"""One stage while it runs: its folder, its process, its record from ``running`` to how it ended, its artifacts."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path
from typing import Any

from mim_mm.checkpoint.atomic import latest_checkpoint
from mim_mm.files import known_object
from mim_mm.runs import move_aside
from mim_mm.transfer import identity, launch, process, rules
from mim_mm.transfer.chain import Stage
from mim_mm.transfer.manifest import Record, seconds_since, tail, utc_now, write_json
from mim_mm.transfer.standing import IDENTITY_FILE, Standing
from mim_mm.transfer.words import Action, Kind, Status

LOG_FILE = 'chain.log'
PROGRESS_FILE = 'progress.json'  # written by mim_mm.ProgressHook
NEEDS_METRICS = (Kind.PROBE, Kind.LINEAR, Kind.FINETUNE, Kind.COCO, Kind.SEG, Kind.SEG_LINEAR)
# What Slurm's warning makes of a training that is not yet listening: as the child of a shell, and of srun.
SIGNALLED = {code: sign.name for sign in (signal.SIGUSR1, signal.SIGUSR2) for code in (-sign, 128 + sign)}

# The stage waits for a line on its standard input before it turns into the real command. Its pid is in run.json by
# then; if the chain is killed in between, the input ends and nothing was started that nobody knows of.
WAIT_FOR_WORD = ['/bin/sh', '-c', 'read -r go || exit 125; exec "$@" </dev/null', 'stage']


def spawn(command: list[str], log: Path, env: dict[str, str]) -> subprocess.Popen:
    """Start a command as the leader of its own group; it waits until :func:`release`. Output goes to the log's end."""
    with open(log, 'ab') as output:
        output.write(f'\n$ {" ".join(command)}\n'.encode())
        output.flush()
        return subprocess.Popen(
            [*WAIT_FOR_WORD, *command],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            env=env,
            start_new_session=True,
        )


def release(child: subprocess.Popen) -> None:
    try:
        child.stdin.write(b'go\n')
        child.stdin.close()
    except BrokenPipeError:  # it died already; poll() will tell
        pass


def read_progress(folder: Path) -> dict[str, Any]:
    return known_object(folder / PROGRESS_FILE)


class Job:
    """A stage that is starting, running or ending.

    Args:
        standing: how the chain stands.
        stage, decision, parent: what is run, why, and from whose weights.
        slot: the place among the stages that run side by side.
    """

    def __init__(self, standing: Standing, stage: Stage, decision: rules.Decision, parent: rules.Parent, slot: int):
        self.standing, self.stage, self.decision, self.parent, self.slot = standing, stage, decision, parent, slot
        self.folder = standing.chain.folder(stage)
        self.log = self.folder / LOG_FILE
        self.child: subprocess.Popen | None = None
        self.record: Record = standing.record(stage)[0] or self._fresh_record()
        self.artifacts = list(stage.artifacts)
        self.making = None  # the artifact in the making
        self.adopted = False

    # ---- starting

    def _fresh_record(self) -> Record:
        s = self.stage
        return Record(self.standing.chain.name, s.name, s.kind, s.arm, s.seed, status=Status.RUNNING)

    def start(self, gpus: int, launcher: str | None, scripts: launch.Scripts, env: dict[str, str]) -> Path | None:
        """Start, continue or adopt the stage.

        Returns:
            Where an earlier run was moved, if one was in the way.
        """
        if self.decision.action == Action.ADOPT:
            self.adopted = True
            return None
        if self.record.process:
            process.stop_group_if_orphaned(self.record.process)
        aside = None
        if self.decision.action == Action.RERUN and self.folder.exists():
            aside = move_aside(self.folder)
            self.record = self._fresh_record()
        self.folder.mkdir(parents=True, exist_ok=True)
        self._forget_end()
        command = launch.train_command(
            self.stage,
            self.folder,
            gpus=gpus,
            launcher=launcher,
            parent=self.parent.checkpoint,
            resume=self.decision.resume,
            auto_scale_lr=self.standing.auto_scale_lr,
            allow_change=self.standing.allow_change,
            trust_pickle=self.standing.trust_pickle,
            log=self.standing.log,
            scripts=scripts,
        )
        self._describe(command, gpus)
        self.child = spawn(command, self.log, env)
        self.record.process = process.describe(self.child.pid)
        self.record.write(self.folder)
        release(self.child)
        return aside

    def _forget_end(self) -> None:
        """A progress.json of an earlier attempt must not pass for the end of this one; its metrics are kept."""
        progress = read_progress(self.folder)
        if progress:
            write_json(self.folder / PROGRESS_FILE, dict(progress, finished=False, eta_s=None, stopped=None))

    def _describe(self, command: list[str], gpus: int) -> None:
        """Write down what the run is made from, before it starts."""
        stage, record, standing = self.stage, self.record, self.standing
        learned, data = standing.learned(stage), standing.data(stage)
        parent = None
        if self.parent.checkpoint is not None:
            parent = dict(stage=self.parent.name, checkpoint=str(self.parent.checkpoint), sha256=self.parent.sha256)
        record.kind, record.arm, record.seed = stage.kind, stage.arm, stage.seed
        record.config = dict(path=str(stage.config), sha256=identity.digest(learned), options=dict(stage.options))
        record.parent, record.data, record.seeds = parent, data, dict(seed=stage.seed)
        record.git, record.versions = identity.git_state(), identity.versions()
        record.code = standing.code(stage)
        record.status, record.command, record.gpus = Status.RUNNING, command, gpus
        self._count_lost_attempt()
        record.started, record.finished, record.exit_code, record.error = utc_now(), None, None, None
        resumed = self.decision.resume.name if self.decision.resume else None
        record.attempts.append(dict(started=record.started, resumed_from=resumed, gpus=gpus, status=Status.RUNNING))
        write_json(self.folder / IDENTITY_FILE, dict(config=learned, parent=self.parent.sha256, data=data))
        standing.cache.save()

    def _count_lost_attempt(self) -> None:
        """An attempt nobody saw ending lasted at least until its last progress.json."""
        last = self.record.attempts[-1] if self.record.attempts else {}
        if last.get('status') == Status.RUNNING:
            last['status'] = 'cut off'
            updated = read_progress(self.folder).get('updated')
            if updated:
                until_now = max(0.0, time.time() - updated)
                self.record.wall_s = round(self.record.wall_s + max(0.0, seconds_since(last['started']) - until_now), 1)

    # ---- running

    def poll(self) -> bool:
        """Whether the stage, artifacts included, is over."""
        if self.adopted:
            if process.leader_alive(self.record.process):
                return False
            self.adopted = False
            self._finish(exit_code=None)
        elif self.child is not None:
            code = self.child.poll()
            if code is None:
                return False
            process.stop_group(self.child.pid, grace_s=5.0)  # workers that outlive their stage would hold its memory
            self.child = None
            if self.making is None:
                self._finish(code)
            else:
                self._finish_artifact(code)
        return self.record.status != Status.DONE or not self._next_artifact()

    @property
    def pid(self) -> int | None:
        return self.child.pid if self.child is not None else self.record.process['pid'] if self.adopted else None

    def progress(self) -> dict[str, Any]:
        return read_progress(self.folder)

    @property
    def label(self) -> str:
        return f'{self.stage.name} artifact {self.making.name}' if self.making else self.stage.name

    # ---- ending

    def _finish(self, exit_code: int | None) -> None:
        """Judge the run by its exit code and by what it left. An adopted run has no exit code that reaches us."""
        progress, checkpoint = read_progress(self.folder), latest_checkpoint(self.folder)
        problem = None
        stopped = progress.get('stopped') or SIGNALLED.get(exit_code)
        if exit_code and stopped:  # asked to stop, and able to go on
            self._close(Status.INTERRUPTED, exit_code, f'stopped by {stopped} at iteration {progress.get("iter")}')
            return
        if exit_code:
            how = f'signal {-exit_code}' if exit_code < 0 else f'exit code {exit_code}'
            problem = f'ended with {how}; last lines of {self.log}:\n{tail(self.log)}'
        elif not progress.get('finished'):
            problem = (
                f'ended without finishing its training (progress.json); last lines of {self.log}:\n{tail(self.log)}'
            )
        elif checkpoint is None:
            problem = (
                f'ended normally but left no checkpoint in {self.folder}; is default_hooks.checkpoint switched off?'
            )
        elif self.stage.kind in NEEDS_METRICS and not progress.get('metrics'):
            problem = (
                'ended normally but measured nothing: progress.json has no metrics. Does the config have a '
                f'val_dataloader and val_evaluator, and val_interval <= max_epochs? Then --rerun {self.stage.name}'
            )
        self._close(Status.FAILED if problem else Status.DONE, exit_code, problem)

    def interrupt(self, why: str) -> None:
        """Write down that the run was stopped from outside; its process is gone by now."""
        self.child = None
        if self.record.status == Status.RUNNING:
            self._close(Status.INTERRUPTED, None, why)

    def _close(self, status: Status, exit_code: int | None, problem: str | None) -> None:
        record, progress = self.record, read_progress(self.folder)
        checkpoint = latest_checkpoint(self.folder)
        seconds = seconds_since(record.started) if record.started else 0.0
        record.status, record.exit_code, record.error = status, exit_code, problem
        record.finished, record.process = utc_now(), None
        record.wall_s = round(record.wall_s + seconds, 1)
        record.progress, record.metrics = progress, progress.get('metrics') or {}
        record.device = progress.get('device') or record.device
        record.checkpoint = checkpoint.name if checkpoint else None
        record.scalars = self._scalars()
        if record.attempts:
            record.attempts[-1].update(finished=record.finished, status=status, exit_code=exit_code)
        record.write(self.folder)

    def _scalars(self) -> str | None:
        """The newest of mmengine's scalar logs; every attempt has one, in a folder named after its start."""
        found = sorted(self.folder.glob('*/vis_data/scalars.json'))
        return str(found[-1].relative_to(self.folder)) if found else None

    # ---- artifacts

    def _next_artifact(self) -> bool:
        """Start the next artifact that is not there yet; False when none is left."""
        self.making = None
        while self.artifacts:
            artifact = self.artifacts.pop(0)
            if artifact.name in self.record.artifacts:
                continue
            self.making = artifact
            log = self.folder / f'artifact-{artifact.name}.log'
            checkpoint = self.folder / (self.record.checkpoint or '')
            command = launch.artifact_command(artifact, self.stage, self.folder.resolve(), checkpoint.resolve())
            (self.folder / artifact.path).parent.mkdir(parents=True, exist_ok=True)
            self.child = spawn(command, log, launch.environment(self.slot, 1, 1, []))
            release(self.child)
            return True
        return False

    def _finish_artifact(self, code: int) -> None:
        """A failed artifact is noted and tried again in the next call; the stage's result stands."""
        name, path = self.making.name, self.folder / self.making.path
        log = self.folder / f'artifact-{name}.log'
        self.record.artifact_errors.pop(name, None)
        if code == 0 and path.exists():
            self.record.artifacts[name] = self.making.path
        else:
            what = f'exit code {code}' if code else f'it did not leave {self.making.path}'
            self.record.artifact_errors[name] = f'{what}; last lines of {log}:\n{tail(log)}'
        self.record.write(self.folder)


def make_artifacts_only(standing: Standing, stage: Stage, slot: int) -> Job | None:
    """A job for a finished stage whose artifacts are not all there, already making the first of them."""
    job = Job(standing, stage, rules.Decision(Action.SKIP, ''), rules.Parent(), slot)
    return job if job._next_artifact() else None
