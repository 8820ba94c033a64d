"""Running a sweep: each point is a ``tools/transfer.py`` of its own; several side by side where there is room."""

from __future__ import annotations

import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mim_mm.transfer import launch, process
from mim_mm.transfer.call import GRACE_S, Call, transfer_command
from mim_mm.transfer.chain import ChainError, unknown
from mim_mm.transfer.display import Display, span
from mim_mm.transfer.execute import POLL_S
from mim_mm.transfer.manifest import tail
from mim_mm.transfer.slurm import slurm_submit, slurm_sweep
from mim_mm.transfer.sweep.grid import Point, Sweep, load_sweep, write_point

LOG_FILE = 'sweep.log'
WORDS = {0: 'done', 1: 'failed', 2: 'refused', 75: 'stopped'}  # exit codes of tools/transfer.py


@dataclass
class SweepCall:
    """One call of a sweep; the fields are the options of ``tools/sweep.py``."""

    sweep: str
    gpus: int = 1
    jobs: int = 1
    work_dir: str | None = None
    only: Sequence[str] = ()  # names of points
    dry_run: bool = False
    data_root: Sequence[str] = ()
    launcher: str | None = None
    auto_scale_lr: bool = False
    slurm: Sequence[str] = ()


@dataclass(frozen=True)
class ResolvedSweep:
    """A call that is understood: its sweep, those of the points that it names, where to say what happens."""

    call: SweepCall
    sweep: Sweep
    points: list[Point]
    display: Display


@dataclass(frozen=True)
class SweepPlan:
    """What a call does with its points: the command of each, a call of the chain; or all of them as one Slurm array."""

    resolved: ResolvedSweep
    commands: dict[str, list[str]]
    as_array: bool
    devices: list[str]  # CUDA devices to share among points that run side by side


def chain_command(chain: Path, work_dir: Path, call: SweepCall) -> list[str]:
    """The call of ``tools/transfer.py`` for one point."""
    return transfer_command(Call(
        str(chain), work_dir=str(work_dir), gpus=call.gpus, data_root=call.data_root, launcher=call.launcher,
        auto_scale_lr=call.auto_scale_lr,
    ))  # fmt: skip


def run_sweep(
    call: SweepCall,
    display: Display | None = None,
    command: Callable[[Path, Path, SweepCall], list[str]] = chain_command,
    grace_s: float = GRACE_S + 10,
) -> tuple[int, Sweep]:
    """Run the chain of every point, or with ``dry_run`` say which there are and write nothing.

    Args:
        command: ``(chain config, work dir, call) -> command line`` of a point.
        grace_s: how long a chain may take to stop its stages; longer than the chain's own patience.

    Returns:
        The exit code (0: all points done; 1: a point failed or was refused; 130, 143: stopped) and the sweep.

    Raises:
        ChainError: the sweep cannot work; nothing was started.
    """
    resolved = resolve(call, display or Display())
    return carry_out(plan(resolved, command), grace_s), resolved.sweep


def resolve(call: SweepCall, display: Display) -> ResolvedSweep:
    """Read the sweep and expand its grid; nothing is written."""
    sweep = load_sweep(call.sweep, call.work_dir)
    points = select(sweep, call.only)
    if call.jobs < 1:
        raise ChainError(f'--jobs {call.jobs} must be at least 1')
    return ResolvedSweep(call, sweep, points, display)


def plan(resolved: ResolvedSweep, command: Callable[[Path, Path, SweepCall], list[str]]) -> SweepPlan:
    """The command of every point; what each of these chains does is planned when it is called."""
    call, sweep = resolved.call, resolved.sweep
    devices = launch.visible_devices() if call.jobs > 1 else []
    if call.jobs > 1 and call.launcher not in ('slurm', 'mpi'):
        launch.check_devices(call.jobs, call.gpus, devices)
    commands = {p.name: command(sweep.chain_file(p), sweep.folder(p), call) for p in resolved.points}
    return SweepPlan(resolved, commands, slurm_submit.wanted(call.launcher, call.slurm), devices)


def carry_out(plan: SweepPlan, grace_s: float) -> int:
    """Write the chain of every point and run them, or submit them; in a dry run only say what would be done."""
    call, sweep, points = plan.resolved.call, plan.resolved.sweep, plan.resolved.points
    display = plan.resolved.display
    display.say(f'sweep {sweep.name}: {len(points)} points over {", ".join(sweep.axes)} in {sweep.work_dir}')
    if call.dry_run:
        if plan.as_array:
            display.say('would submit one array, a point an element, which runs what follows in its allocation:')
        for point in points:
            display.say(f'  {point.name}')
            display.say(f'      $ {shlex.join(plan.commands[point.name])}')
        return 0
    with process.WorkDirLock(sweep.work_dir) as lock:
        chains = {point.name: write_point(sweep, point) for point in points}  # all are sound before the first starts
        if plan.as_array:
            array = slurm_sweep.plan_array(call, sweep, points, chains)
            sweep.write_summary(slurm_sweep.submit_array(array, call, sweep, chains, display))
            return 0
        slurm_submit.refuse_queued(sweep.work_dir)
        return _Run(plan, lock, grace_s).run()


def select(sweep: Sweep, names: Sequence[str]) -> list[Point]:
    """The points called so; all of them without names."""
    known = {point.name: point for point in sweep.points}
    for name in names:
        if name not in known:
            raise unknown('point', name, known, f'sweep {sweep.name}')
    return [known[name] for name in names] if names else list(sweep.points)


class _Run:
    """One call's run of the points."""

    def __init__(self, plan: SweepPlan, lock: process.WorkDirLock, grace_s: float):
        self.plan, self.lock, self.grace_s = plan, lock, grace_s
        self.call, self.sweep, self.display = plan.resolved.call, plan.resolved.sweep, plan.resolved.display
        self.running: dict[int, tuple[Point, subprocess.Popen, float]] = {}
        self.statuses: dict[str, str] = {}
        self.signal: int | None = None

    def run(self) -> int:
        waiting = list(self.plan.resolved.points)
        before = {sign: signal.signal(sign, self._on_signal) for sign in (signal.SIGINT, signal.SIGTERM)}
        try:
            while (waiting or self.running) and self.signal is None:
                while waiting and len(self.running) < self.call.jobs:
                    self._start(waiting.pop(0))
                self._poll()
                self.lock.beat()
                if self.running:
                    time.sleep(POLL_S)
        finally:
            self._stop()
            for sign, handler in before.items():
                signal.signal(sign, handler)
            self.sweep.write_summary(self.statuses)
        if self.signal is not None:
            return 128 + self.signal
        return int(any(status != 'done' for status in self.statuses.values()))

    def _start(self, point: Point) -> None:
        slot = min(set(range(self.call.jobs)) - set(self.running))
        folder = self.sweep.folder(point)
        folder.mkdir(parents=True, exist_ok=True)
        command = self.plan.commands[point.name]
        env = launch.environment(slot, self.call.jobs, self.call.gpus, self.plan.devices)
        with open(folder / LOG_FILE, 'ab') as log:
            log.write(f'\n$ {shlex.join(command)}\n'.encode())
            log.flush()
            child = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=env, start_new_session=True
            )
        self.running[slot] = (point, child, time.monotonic())
        self._note(point, 'running')
        self.display.say(f'[{point.name}] log: {folder / LOG_FILE}')

    def _poll(self) -> None:
        for slot, (point, child, begun) in list(self.running.items()):
            code = child.poll()
            if code is None:
                continue
            del self.running[slot]
            self._note(point, WORDS.get(code, 'failed'))
            took = span(time.monotonic() - begun)
            if code == 0:
                self.display.say(f'[{point.name}] done in {took}')
            else:
                last = tail(self.sweep.folder(point) / LOG_FILE, lines=12)
                self.display.say(f'[{point.name}] {self.statuses[point.name].upper()} after {took}; it said:\n{last}')

    def _note(self, point: Point, status: str) -> None:
        self.statuses[point.name] = status
        self.sweep.write_summary(self.statuses)

    def _on_signal(self, number, frame) -> None:
        if self.signal is not None:  # the second one: do not wait any longer
            self.grace_s = 0.0
        self.signal = number

    def _stop(self) -> None:
        """Ask the chains that still run to stop; each stops its stages and writes down how far they were."""
        for point, child, _ in self.running.values():
            self.display.say(f'[{point.name}] stopping')
            child.terminate()
        end = time.monotonic() + self.grace_s
        for point, child, _ in self.running.values():
            while child.poll() is None and time.monotonic() < end and self.grace_s > 0:
                time.sleep(0.05)
            if child.poll() is None:
                child.kill()
                child.wait()
            self.statuses[point.name] = 'interrupted'
        self.running.clear()
