"""A small training in processes of its own, to be hurt: marks say how far it is, and what is left of it is found.

With or without loader workers, on one process or through tools/dist_train.sh; a step takes a few hundredths of a
second. Module :mod:`fault_marks` runs inside of it.
"""

import atexit
import multiprocessing
import os
import runpy
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


PRELOAD = ['mim_mm', 'mmengine.runner', 'mmpretrain.models', 'mim_mm.engine.start.launch']


def _command(argv, environment, log):
    """``python ARGV`` in a process that has done the imports, as the leader of a group; it ends as Python ends."""
    os.setsid()
    handle = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    os.chdir(ROOT)
    os.environ.clear()
    os.environ.update(environment)
    sys.path[:0] = environment['PYTHONPATH'].split(os.pathsep)
    sys.argv = [str(word) for word in argv]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    code = 0
    try:
        runpy.run_path(sys.argv[0], run_name='__main__')
    except BaseException as error:
        try:
            if not isinstance(error, SystemExit):
                code = 1
                sys.excepthook(type(error), error, error.__traceback__)
        except SystemExit as stop:
            error = stop
        if isinstance(error, SystemExit):
            code = error.code if isinstance(error.code, int) else int(error.code is not None)
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


class Warm:
    """Processes of :func:`_command` with the face of a Popen; the code is that of the first that did not end with 0."""

    def __init__(self, argv, environments, log):
        multiprocessing.set_forkserver_preload(PRELOAD)
        context = multiprocessing.get_context('forkserver')
        self.ranks = [context.Process(target=_command, args=(argv, e, str(log))) for e in environments]
        for rank in self.ranks:
            rank.start()
        self.pids = [rank.pid for rank in self.ranks]
        self.pid = self.pids[0]

    def poll(self):
        codes = [rank.exitcode for rank in self.ranks]
        return None if None in codes else next((code for code in codes if code), 0)

    def codes(self):
        return [rank.exitcode for rank in self.ranks]

    def wait(self, limit_s):
        end = time.monotonic() + limit_s
        while self.poll() is None:
            if time.monotonic() > end:
                raise subprocess.TimeoutExpired('training', limit_s)
            time.sleep(0.02)
        return self.poll()


class Training:
    """One work dir, and the processes that train in it.

    Args:
        warm: the processes have done their imports (a second and not half a minute on a busy machine), and no torchrun
            looks after several of them, as under Slurm.
        folder: for everything.
        ranks: 1 is tools/train.py itself.
        validated: a linear probe with a validation an epoch in place of a pretraining.
        fault: what :mod:`fault_marks` does on its own, e.g. ``'raise rank=1 step=3'``.
    """

    def __init__(self, folder, ranks=1, workers=0, method='fork', persistent=False, validated=False, timeout=20,
                 fault='', warm=False):  # fmt: skip
        self.warm, self.fault = warm, fault
        self.folder, self.ranks, self.work = Path(folder), ranks, Path(folder) / 'work'
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
        return dict(os.environ, PYTHON=sys.executable, PYTHONPATH=os.pathsep.join(filter(None, paths)),
                    PORT='0', OMP_NUM_THREADS='1', MPLBACKEND='Agg',
                    FAULT_MARKS=str(self.marks), FAULT=fault)  # fmt: skip

    def start(self, *words, fault=None):
        environment = self.environment(self.fault if fault is None else fault)
        if self.warm:
            self.log.write_text('')
            self.marks.write_text('')
            port = free_port()  # rank 0 holds the store, as under Slurm
            ranks = [dict(RANK=str(i), LOCAL_RANK=str(i), WORLD_SIZE=str(self.ranks), MASTER_ADDR='127.0.0.1',
                          MASTER_PORT=port) for i in range(self.ranks)]  # fmt: skip
            several = ['--launcher', 'pytorch'] if self.ranks > 1 else []
            argv = ['tools/train.py', self.config, '--work-dir', self.work, *several, *words]
            self.child = Warm(argv, [{**environment, **(rank if several else {})} for rank in ranks], self.log)
            return self
        options = [str(self.config), *([str(self.ranks)] if self.ranks > 1 else []), '--work-dir', str(self.work)]
        script = ['bash', 'tools/dist_train.sh'] if self.ranks > 1 else [sys.executable, 'tools/train.py']
        self.marks.write_text('')
        with open(self.log, 'w') as log:
            self.child = subprocess.Popen([*script, *options, *words], cwd=ROOT, stdout=log, stderr=log,
                                          env=environment, start_new_session=True)  # fmt: skip
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
        groups = {str(pid) for pid in self.child.pids} if self.warm and self.child else ()
        for entry in Path('/proc').iterdir():
            if entry.name.isdigit():
                try:
                    state, _, group = (entry / 'stat').read_text().rpartition(')')[2].split()[:3]
                    mine = group in groups or f'FAULT_MARKS={self.marks}'.encode() in (entry / 'environ').read_bytes()
                    found += [int(entry.name)] if mine and state not in 'ZX' else []
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

    def send(self, sign, to_group=True):
        """A signal to the process (with ranks of their own: all of them), or to their groups."""
        for pid in self.child.pids if self.warm else [self.child.pid]:
            try:
                os.killpg(pid, sign) if to_group else os.kill(pid, sign)
            except ProcessLookupError:
                pass

    def said(self):
        return self.log.read_text(errors='replace')
