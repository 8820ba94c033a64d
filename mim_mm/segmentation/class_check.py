"""One number of classes for heads and data."""

from __future__ import annotations

from mmengine.hooks import Hook
from mmengine.runner import Runner

from mim_mm.engine.bare_model import bare_datasets, bare_model
from mim_mm.folders import DataError
from mim_mm.registry import HOOKS


@HOOKS.register_module()
class MaskClassesHook(Hook):
    """Stop where the heads have another number of classes than the data.

    Too few, and the loss fails on a GPU with an assertion that names nothing; too many trains on without a word.

    Raises:
        DataError: with both numbers.
    """

    def before_train(self, runner: Runner) -> None:
        self._check(runner, runner.train_dataloader)
        if runner.val_loop is not None:
            self._check(runner, runner.val_dataloader)

    def before_test(self, runner: Runner) -> None:
        self._check(runner, runner.test_dataloader)

    @staticmethod
    def _check(runner: Runner, loader) -> None:
        heads = bare_model(runner).heads()
        for dataset in bare_datasets(loader.dataset):
            count = len(dataset.metainfo.get('classes') or ())
            for name, head in heads.items():
                if count != head.num_classes:
                    options = ' '.join(f'model.{head_name}.num_classes={count}' for head_name in heads)
                    raise DataError(
                        f'{type(dataset).__name__} has {count} classes, {name} {head.num_classes}: they must be equal. '
                        f'Add --cfg-options {options}'
                    )
