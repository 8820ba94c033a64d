"""A small training in processes of its own, to be hurt: marks say how far it is, and what is left of it is found.

With or without loader workers, on one process or through tools/dist_train.sh; a step takes a few hundredths of a
second. Module :mod:`fault_marks` runs inside of it.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
LIMIT_S = 120.0

CONFIG = """
_base_ = r'{root}/configs/emae/emae_vitb_800e.py'
custom_imports = dict(imports=['mim_mm', 'fault_marks'], allow_failed_imports=False)
model = dict(backbone=dict(arch=dict(_delete_=True, embed_dims=32, num_layers=2, num_heads=2, feedforward_channels=64),
             img_size=32, patch_size=8), decoder=dict(embed_dims=32, depth=1, num_heads=2))
steps = [dict(type='LoadImageFromFile'), dict(type='FaultyStep'), dict(type='Resize', scale=(32, 32)),
         dict(type='PackImage')]
train_dataloader = dict(batch_size=2, num_workers={workers}, persistent_workers={persistent}, pin_memory=False)
train_dataloader['dataset'] = dict(data_root=r'{images}', pipeline=steps)
optim_wrapper = dict(accumulative_counts=1)
custom_hooks = [dict(type='Marks'), dict(type='mim_mm.StopOnSignalHook', interval=2)]
train_cfg = dict(max_epochs=3)
param_scheduler = []
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(interval=1))
env_cfg = dict(mp_cfg=dict(mp_start_method='{method}'), dist_cfg=dict(timeout={timeout}))
"""
VALIDATED = """
_base_ = r'{root}/configs/linear/vitb_linear_90e.py'
custom_imports = dict(imports=['mim_mm', 'fault_marks'], allow_failed_imports=False)
model = dict(backbone=dict(arch=dict(_delete_=True, embed_dims=32, num_layers=2, num_heads=2, feedforward_channels=64),
             img_size=32, patch_size=8, frozen_stages=2), neck=dict(input_features=32),
             head=dict(num_classes=2, in_channels=32))
steps = [dict(type='LoadImageFromFile'), dict(type='FaultyStep'), dict(type='Resize', scale=(32, 32)),
         dict(type='PackInputs')]
data = dict(data_root=r'{images}', data_prefix='train', classes_from=None, pipeline=steps)
train_dataloader = dict(batch_size=2, num_workers={workers}, persistent_workers={persistent}, pin_memory=False)
train_dataloader['dataset'] = data
val_dataloader = dict(batch_size=2, num_workers={workers}, persistent_workers={persistent}, pin_memory=False)
val_dataloader['dataset'] = data
val_evaluator = dict(topk=(1,))
test_dataloader = None
test_cfg = None
test_evaluator = None
custom_hooks = [dict(type='Marks'), dict(type='mim_mm.StopOnSignalHook', interval=2)]
train_cfg = dict(max_epochs=3)
param_scheduler = []
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(interval=1))
env_cfg = dict(mp_cfg=dict(mp_start_method='{method}'), dist_cfg=dict(timeout={timeout}))
"""


def free_port():
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return str(probe.getsockname()[1])


class Training:
    """One work dir, and the processes that train in it.

    Args:
        folder: for everything.
        ranks: 1 is tools/train.py itself.
        validated: a linear probe with a validation an epoch in place of a pretraining.
        fault: what :mod:`fault_marks` does on its own, e.g. ``'raise rank=1 step=3'``.
    """

    def __init__(self, folder, ranks=1, workers=0, method='fork', persistent=False, validated=False, timeout=20, fault=''):
        self.folder, self.ranks, self.work, self.fault = Path(folder), ranks, Path(folder) / 'work', fault
        self.marks, self.log = self.folder / 'marks', self.folder / 'log'
        images = self.folder / 'images'
        for i in range(16):
            path = images / f'train/{"ab"[i % 2]}/{i}.png'
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.random.default_rng(i).integers(0, 255, (32, 32, 3), dtype=np.uint8)).save(path)
        self.config = self.folder / 'config.py'
        self.config.write_text((VALIDATED if validated else CONFIG).format(
            root=ROOT, images=images, workers=workers, persistent=bool(workers) and persistent, method=method,
            timeout=timeout))  # fmt: skip
        self.child = None

    def environment(self, fault):
        paths = [str(ROOT), str(ROOT / 'tests/helpers'), os.environ.get('PYTHONPATH', '')]
        return dict(os.environ, PYTHON=sys.executable, PYTHONPATH=os.pathsep.join(filter(None, paths)), PORT=free_port(),
                    OMP_NUM_THREADS='1', FAULT_MARKS=str(self.marks), FAULT=fault, MPLBACKEND='Agg')  # fmt: skip

    def start(self, *words, fault=None):
        options = [str(self.config), *([str(self.ranks)] if self.ranks > 1 else []), '--work-dir', str(self.work)]
        script = ['bash', 'tools/dist_train.sh'] if self.ranks > 1 else [sys.executable, 'tools/train.py']
        self.marks.write_text('')
        with open(self.log, 'w') as log:
            self.child = subprocess.Popen([*script, *options, *words], cwd=ROOT, stdout=log, stderr=log,
                                          env=self.environment(self.fault if fault is None else fault),
                                          start_new_session=True)  # fmt: skip
        return self

    def wait(self, limit_s=LIMIT_S):
        """The exit code; None where it has not ended in time (it is killed then)."""
        try:
            return self.child.wait(limit_s)
        except subprocess.TimeoutExpired:
            self.kill_all()
            return None

    def await_mark(self, text, limit_s=LIMIT_S):
        """The rest of the first line of ``marks`` that begins with ``text``; None where the training ends before."""
        end = time.monotonic() + limit_s
        while time.monotonic() < end:
            for line in self.marks.read_text().splitlines():
                if line.startswith(text):
                    return line[len(text) :].strip()
            if self.child.poll() is not None:
                return None
            time.sleep(0.01)
        return None

    def resume(self):
        """Exit code of going on to the end without a fault."""
        return self.start('--resume', 'auto', fault='').wait()

    def left(self):
        """Processes of this training that still live, whoever their parent is now."""
        found = []
        for entry in Path('/proc').iterdir():
            if entry.name.isdigit():
                try:
                    if f'FAULT_MARKS={self.marks}'.encode() in (entry / 'environ').read_bytes():
                        state = (entry / 'stat').read_text().rpartition(')')[2].split()[0]
                        found += [int(entry.name)] if state not in 'ZX' else []
                except OSError:
                    continue
        return found

    def left_after(self, seconds):
        end = time.monotonic() + seconds
        while (found := self.left()) and time.monotonic() < end:
            time.sleep(0.1)
        return found

    def kill_all(self):
        for pid in self.left():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        if self.child is not None:
            self.child.wait(20)

    def said(self):
        return self.log.read_text(errors='replace')
