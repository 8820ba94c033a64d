"""One number of classes for head, mixup and data, whatever folder the recipe is pointed at."""

from __future__ import annotations

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from mim_mm.registry import HOOKS


@HOOKS.register_module()
class ClassCountHook(Hook):
    """Stop when the head and the folders disagree about the number of classes; tell mixup the head's number.

    mmpretrain trains a 1000-way head on 100 folders without a word, and its mixup needs the number a second time, in
    the data preprocessor. With this hook ``--cfg-options model.head.num_classes=100`` is all that other data needs.

    Raises:
        ValueError: The training set has another number of classes than the head.
    """

    def before_train(self, runner: Runner) -> None:
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        count = model.head.num_classes
        classes = runner.train_dataloader.dataset.metainfo.get('classes')
        if classes is not None and len(classes) != count:
            raise ValueError(
                f'The training set has {len(classes)} classes, the head {count}: they must be equal. '
                f'Add --cfg-options model.head.num_classes={len(classes)}'
            )
        if getattr(model.data_preprocessor, 'num_classes', None) is not None:
            model.data_preprocessor.num_classes = count
