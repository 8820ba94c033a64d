"""A pretraining of seconds through tools/train.py's own entry, for trials of what goes wrong around it."""

import itertools
import multiprocessing
import os
from types import SimpleNamespace

import numpy
import torch
from PIL import Image
from processes import in_process
from tiny_run import shrunken

numbers = itertools.count()


def _train_in_child(words, log):
    torch.set_num_threads(1)
    done = in_process(*words)
    with open(log, 'w') as file:
        file.write(done.stdout + done.stderr)
    os._exit(done.returncode)


class Training:
    """A folder with images, a recipe at test size and a work dir."""

    def __init__(self, folder):
        self.folder, self.work = folder, folder / 'work'
        images = folder / 'images/train/class'
        images.mkdir(parents=True, exist_ok=True)
        for i in range(8):
            pixels = numpy.random.default_rng(i).integers(0, 255, (40, 40, 3), dtype=numpy.uint8)
            Image.fromarray(pixels).save(images / f'{i}.png')
        cfg = shrunken(**{'param_scheduler.0.end': 1, 'param_scheduler.1.begin': 1,
                          'train_dataloader.dataset.data_root': str(folder / 'images')})  # fmt: skip
        self.config = folder / 'tiny.py'
        cfg.dump(self.config)

    def words(self, epochs, *words):
        options = [f'train_cfg.max_epochs={epochs}', f'experiment_name=e{os.getpid()}-{next(numbers)}']
        return ['train.py', self.config, '--work-dir', self.work, *words, '--cfg-options', *options]

    def train(self, epochs, *words):
        """``returncode``, and ``error``: what it said on stderr that is no line of the log."""
        done = in_process(*self.words(epochs, *words))
        told = [line for line in done.stderr.splitlines() if line.startswith('error: ') or 'Traceback' in line]
        return SimpleNamespace(returncode=done.returncode, error='\n'.join(told), log=done.stdout + done.stderr)

    def start(self, epochs, log):
        """The same in a process of its own, which is forked from one that has the imports."""
        words = [str(word) for word in self.words(epochs)]
        child = multiprocessing.get_context('forkserver').Process(target=_train_in_child, args=(words, str(log)))
        child.start()
        return child

    def saved(self):
        return sorted(path.name for path in self.work.glob('*.pth'))

    def rubbish(self):
        return [path.name for path in self.work.rglob('*.tmp')]
