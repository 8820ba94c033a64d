"""A rank or a data worker that dies, stops, hangs or raises: the job ends in bounded time and says which one it was."""

import os
import pathlib
import random
import signal
import time

from fault_training import Training

NAME = 'ranks: dead, stopped, hanging or raising ones are named, in bounded time'
TIMEOUT_S = 12
# What happens, what the log must say of it besides the rank, and the exit codes.
KINDS = {
    'kill rank': 'dead or stopped|lost',
    'raise': 'ZeroDivisionError: planned',
    'stop rank': 'dead or stopped|does not answer',
    'data_kill': 'data worker',
    'hang': 'rank {rank} ',
    'data_raise': 'planned',
    'memory': 'no memory left',
    'data_hang': 'rank {rank} ',
    'differ': 'do not train the same thing: training images',
    'stop worker': 'no batch came|reading data',  # the second where it stopped in the middle of sending one
}


def whole_checkpoints(folder):
    from mim_mm.checkpoint.atomic import is_whole

    return all(is_whole(path) for path in folder.glob('*.pth'))


def trial(number: int, folder: pathlib.Path) -> tuple[bool, str]:
    draw = random.Random(number)
    kind = list(KINDS)[number % len(KINDS)]
    ranks, rank = 2, draw.randrange(2)
    step = draw.randrange(1, 4 if kind.startswith('data') else 7)  # workers count anew in each epoch of four steps
    workers = 1 if kind in ('data_kill', 'stop worker') else draw.choice((0, 1))
    warm = draw.random() < 0.8
    fault = f'{kind} rank={rank} step={step}' if ' ' not in kind else ''
    run = Training(folder, ranks, workers, timeout=TIMEOUT_S, fault=fault, warm=warm)
    what = f'{kind}, rank {rank} of {ranks}, step {step}, {workers} workers, {"warm" if warm else "torchrun"}'
    if kind == 'stop worker':
        run.config.write_text(run.config.read_text() + 'train_dataloader["timeout"] = 5\n')
    if kind == 'differ':
        fewer, all_of_them = shorter(run.folder), run.folder / 'images'
        text = run.config.read_text().replace(f"data_root=r'{all_of_them}'", 'data_root=images')
        choose = f'import os\nimages = r"{fewer}" if os.environ["RANK"] == "1" else r"{all_of_them}"\n'
        run.config.write_text(choose + text)
    try:
        run.start()
        if ' ' in kind:
            pid = run.await_mark(f'rank{rank} step {step}')
            if kind == 'stop worker':
                employer, pid = int(pid), None
                while pid is None and run.child.poll() is None:  # between two epochs there is none
                    pid = next((p for p in run.left() if parent_of(p) == employer), None)
            os.kill(int(pid), signal.SIGKILL if kind == 'kill rank' else signal.SIGSTOP)
            begun = time.monotonic()
        else:
            begun = time.monotonic() if run.await_mark('rank0 train') is not None else time.monotonic()
        # torchrun gives the others 30 s, and so does Slurm; without both the stopped one itself is ended here.
        seconds = 4 * TIMEOUT_S + 40
        if warm:
            others = [r for r in range(ranks) if r != rank or kind not in ('stop rank', 'hang', 'data_hang')]
            end = time.monotonic() + seconds
            while any(run.child.codes()[r] is None for r in others) and time.monotonic() < end:
                time.sleep(0.05)
            codes = [run.child.codes()[r] for r in others]
            for pid in run.left() if None not in codes else ():
                if len(others) < ranks:
                    os.kill(pid, signal.SIGKILL)
            code = None if None in codes else next((c for c in codes if c), 0)
        else:
            code = run.wait(seconds)
        took, said = time.monotonic() - begun, run.said()
        orphans = run.left_after(8.0)
        if not code:
            return False, f'{what}: exit code {code} after {took:.0f} s: {said[-1500:]}'
        if orphans:
            return False, f'{what}: {len(orphans)} process(es) left'
        words = KINDS[kind].format(rank=rank).split('|')
        if not any(word in said for word in words) or not (kind == 'differ' or f'rank {rank} ' in said):
            return False, f'{what}: not named after {took:.0f} s: {said[-2500:]}'
        if not whole_checkpoints(run.work):
            return False, f'{what}: a checkpoint is damaged'
        if kind == 'differ':
            return True, f'{what}: exit code {code}, both refused'
        again = run.resume()
        return again == 0, f'{what}: exit code {code} after {took:.0f} s, resumed with {again}'
    finally:
        run.kill_all()


def shorter(folder):
    """A copy of the images without two of them."""
    import shutil

    copy = folder / 'fewer'
    shutil.copytree(folder / 'images', copy)
    for path in sorted(copy.rglob('*.png'))[:2]:
        path.unlink()
    return copy


def parent_of(pid):
    try:
        return int(pathlib.Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[1])
    except OSError:
        return None
