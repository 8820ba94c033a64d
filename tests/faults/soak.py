"""A long training with loader workers, looked at from outside: do memory, open files or processes grow?

python tests/faults/soak.py --minutes 30

Needs Linux (/proc). A small MAE on generated images, two workers, a checkpoint an epoch. The first third is left out of
the slopes: caches fill and the allocator settles.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
CONFIG = """
_base_ = '{root}/configs/mae/mae_vitb_300e.py'
model = dict(
    backbone=dict(
        arch=dict(_delete_=True, embed_dims=32, num_layers=2, num_heads=2, feedforward_channels=64),
        img_size=32, patch_size=8,
    ),
    decoder=dict(embed_dims=32, depth=1, num_heads=2),
)
train_dataloader = dict(batch_size=16, num_workers=2, persistent_workers={persistent}, pin_memory=False)
_base_.train_dataloader.dataset.pipeline[1].scale = 32
train_cfg = dict(max_epochs=1000000)
param_scheduler = [dict(type='mim_mm.HalfCosineLR', by_epoch=True, convert_to_iter_based=True)]
default_hooks = dict(logger=dict(interval=20), checkpoint=dict(interval=1, max_keep_ckpts=1))
"""


def tree(pid):
    """A process and all below it."""
    found, left = [], [pid]
    while left:
        found.append(left.pop())
        try:
            left += map(int, Path(f'/proc/{found[-1]}/task/{found[-1]}/children').read_text().split())
        except OSError:
            continue
    return found


def measure(pid):
    """(MB of private memory, open files, processes) of a process tree."""
    memory = handles = count = 0
    for one in tree(pid):
        try:
            fields = dict(
                line.split(':', 1) for line in Path(f'/proc/{one}/smaps_rollup').read_text().splitlines() if ':' in line
            )
            memory += sum(int(fields[key].split()[0]) for key in ('Private_Clean', 'Private_Dirty')) / 1024
            handles += len(os.listdir(f'/proc/{one}/fd'))
            count += 1
        except (OSError, KeyError):
            continue
    return memory, handles, count


def main():
    from PIL import Image

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--minutes', type=float, default=30)
    parser.add_argument('--restart-workers', action='store_true', help='new workers every epoch')
    parser.add_argument('--folder', type=Path, default=ROOT / 'work_dirs/faults/soak')
    call = parser.parse_args()
    images = call.folder / 'data/train/a'
    images.mkdir(parents=True, exist_ok=True)
    for i in range(256):
        pixels = np.random.default_rng(i).integers(0, 256, (48, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(images / f'{i}.jpg')
    config = call.folder / 'soak.py'
    config.write_text(CONFIG.format(root=ROOT, persistent=not call.restart_workers))
    words = [sys.executable, str(ROOT / 'tools/train.py'), str(config), '--work-dir', str(call.folder / 'run')]
    log = (call.folder / 'log').open('w')
    child = subprocess.Popen(
        [*words, '--data-root', str(call.folder / 'data')],
        stdout=log,
        stderr=log,
        env={**os.environ, 'OMP_NUM_THREADS': '1'},
    )
    begin, rows = time.time(), []
    while time.time() - begin < 60 * call.minutes and child.poll() is None:
        time.sleep(10)
        rows.append((time.time() - begin, *measure(child.pid)))
    alive = child.poll() is None
    child.terminate()
    code = child.wait(timeout=120)
    late = np.array([row for row in rows if row[0] > 20 * call.minutes])
    hours = late[:, 0] / 3600
    slopes = [float(np.polyfit(hours, late[:, i], 1)[0]) for i in (1, 2, 3)]
    progress = json.loads((call.folder / 'run/progress.json').read_text())
    ended = 'ran to the end' if alive else f'ended by itself ({code})'
    print(f'{call.minutes:g} min, {progress["iter"]} iterations, {ended}')
    for name, slope, i in zip(('MB', 'open files', 'processes'), slopes, (1, 2, 3)):
        print(f'{name}: {late[0, i]:.1f} -> {late[-1, i]:.1f}, {slope:+.2f} an hour')
    return int(not alive or code != 75)


if __name__ == '__main__':
    sys.exit(main())
