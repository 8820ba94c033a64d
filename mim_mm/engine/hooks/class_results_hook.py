"""What an evaluation found class by class, as JSON beside the run: ``confusion.json``, ``per_class.json``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from mmengine.dist import is_main_process
from mmengine.hooks import Hook

from mim_mm import files
from mim_mm.compat.internals import built_loop
from mim_mm.engine.hooks.harmless import harmless
from mim_mm.registry import HOOKS


@HOOKS.register_module()
class ClassResultsHook(Hook):
    """After each evaluation, write what its metrics have in ``class_results``: a file name and a JSON object.

    ``tools/train.py`` and ``tools/test.py`` add it. Beside the metric's own keys the object has ``epoch`` and ``iter``
    of the weights that were evaluated (None in a run that only tests) and, of a classifier, ``training_images``: how
    many of each class were trained on (None where the training set does not tell).
    """

    changes_learning = False

    @harmless
    def after_val_epoch(self, runner, metrics=None) -> None:
        self._write(runner, built_loop(runner, 'val'))

    @harmless
    def after_test_epoch(self, runner, metrics=None) -> None:
        self._write(runner, built_loop(runner, 'test'))

    def _write(self, runner, loop) -> None:
        if loop is None or not is_main_process():
            return
        train = built_loop(runner, 'train')
        at = dict(epoch=None if train is None else train.epoch, iter=None if train is None else train.iter)
        for metric in loop.evaluator.metrics:
            name, content = getattr(metric, 'class_results', None) or (None, None)
            if name is None:
                continue
            if 'counts' in content:
                content = dict(content, training_images=_training_images(train, len(content['counts'])))
            files.write_json(Path(runner.work_dir) / name, {**content, **at}, sync=False, indent=None)


def _training_images(train: Any, classes: int) -> list[int] | None:
    """Images of each class in the data set of the train loop, which names its labels as mmpretrain's data sets do."""
    labels = getattr(getattr(getattr(train, 'dataloader', None), 'dataset', None), 'get_gt_labels', None)
    if labels is None:
        return None
    counts = np.bincount(np.asarray(labels(), np.int64), minlength=classes)
    return counts.tolist() if len(counts) == classes else None
