"""SIGTERM, SIGUSR1 and Ctrl-C to the process or its whole group, at every stage of a training."""

import json
import pathlib
import random
import signal
import time

from fault_training import Training

NAME = 'signals: stopped politely and resumed'
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
PHASES = ('start', 'rank0 train', 'rank0 step', 'rank0 save', 'rank0 val')
FINISHED = 0


def allowed(sign, phase):
    """Exit codes: saved and stopped, already finished; before training listens, the signal's own."""
    polite = 130 if sign == signal.SIGINT else 75
    early = {-sign, 128 + sign} if phase in ('start', 'rank0 train') else set()
    return {polite, FINISHED} | early


def trial(number: int, folder: pathlib.Path) -> tuple[bool, str]:
    draw = random.Random(number)
    sign, phase = SIGNALS[number % 3], PHASES[number // 3 % 5]
    ranks, workers, to_group = draw.choice((1, 1, 2)), draw.choice((0, 2, 2)), draw.random() < 0.7
    warm = phase != 'start' and draw.random() < 0.75
    # A process that a fork server made shares it with its own workers: those methods need a start of their own.
    method = draw.choice(('fork', 'spawn', 'forkserver')) if workers and not warm else 'fork'
    persistent = method != 'fork' or draw.random() < 0.5
    run = Training(folder, ranks, workers, method, persistent, validated=phase == 'rank0 val', warm=warm)
    what = f'{sign.name} to the {"group" if to_group else "process"} at {phase}, {ranks} rank(s), {workers} workers, '
    what += f'{"warm" if warm else "cold"}, {method}{", persistent" if persistent and workers else ""}'
    try:
        run.start()
        if phase == 'start':
            time.sleep(draw.uniform(0.0, 6.0))
        else:
            run.await_mark(phase + (f' {draw.randrange(8 // ranks)}' if phase == 'rank0 step' else ''))
            time.sleep(draw.choice((0.0, draw.uniform(0, 0.5))))
        if run.child.poll() is None:
            run.send(sign, to_group)
        code = run.wait()
        orphans, said = run.left_after(8.0), run.said()
        if code not in allowed(sign, phase):
            return False, f'{what}: exit code {code}: {said[-800:]}'
        # A command that is stopped while Python itself starts has not said yet how it ends.
        if 'Traceback' in said and phase != 'start':
            return False, f'{what}: exit code {code} with a traceback: {said[-1500:]}'
        if orphans:
            return False, f'{what}: exit code {code}, {len(orphans)} process(es) left'
        again = run.resume()
        progress = json.loads((run.work / 'progress.json').read_text()) if again == 0 else {}
        if again != 0 or not progress['finished'] or progress['epoch'] != 3:
            return False, f'{what}: exit code {code}, resumed with {again}: {run.said()[-800:]}'
        return True, f'{what}: exit code {code}, resumed to the end'
    finally:
        run.kill_all()
