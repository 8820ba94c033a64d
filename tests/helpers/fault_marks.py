"""Inside of a training of :mod:`fault_training`: says how far it is, and fails where the variable FAULT says so.

FAULT is ``KIND rank=R step=S``: ``raise``, ``memory``, ``hang`` (an endless loop in the step), and of the data loading
of rank R, in whichever process: ``data_hang``, ``data_raise``, ``data_kill`` (as the kernel does
when memory is used up).
"""

import os
import signal
import time

import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.registry import HOOKS, TRANSFORMS

KIND, *_rest = (os.environ.get('FAULT') or 'none').split()
WHERE = {name: int(value) for name, value in (word.split('=') for word in _rest)}


def mark(text):
    handle = os.open(os.environ['FAULT_MARKS'], os.O_WRONLY | os.O_APPEND)
    os.write(handle, f'{text} {os.getpid()}\n'.encode())
    os.close(handle)


@HOOKS.register_module()
class Marks(Hook):
    priority = 'HIGHEST'
    changes_learning = False

    def before_train(self, runner):
        mark(f'rank{get_rank()} train')

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        mark(f'rank{get_rank()} step {runner.iter}')
        time.sleep(0.02)
        if WHERE.get('rank') == get_rank() and runner.iter == WHERE.get('step'):
            if KIND == 'raise':
                raise ZeroDivisionError('planned')
            if KIND == 'memory':
                raise torch.OutOfMemoryError('CUDA out of memory. Tried to allocate 2.00 GiB.')
            while KIND == 'hang':
                time.sleep(0.05)

    def before_save_checkpoint(self, runner, checkpoint):
        mark(f'rank{get_rank()} save')

    def before_val_epoch(self, runner):
        mark(f'rank{get_rank()} val')


@TRANSFORMS.register_module()
class FaultyStep:
    count = 0

    def __call__(self, results):
        type(self).count += 1
        rank = int(os.environ.get('RANK', '0'))
        if WHERE.get('rank') == rank and self.count > 2 * WHERE.get('step', 0):
            if KIND == 'data_raise':
                raise ZeroDivisionError('planned')
            if KIND == 'data_kill':
                os.kill(os.getpid(), signal.SIGKILL)
            while KIND == 'data_hang':
                time.sleep(0.05)
        return results
