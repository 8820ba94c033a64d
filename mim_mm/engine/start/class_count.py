"""One number of classes for head, mixup and data, whatever folder the recipe is pointed at."""

from __future__ import annotations

import os

from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mim_mm import files
from mim_mm.engine.bare_model import bare_datasets, bare_model
from mim_mm.engine.start import guard
from mim_mm.folders import DataError, subfolders
from mim_mm.registry import HOOKS


@HOOKS.register_module()
class ClassCountHook(Hook):
    """Stop when head, training and validation set disagree about the classes; tell mixup the head's number.

    mmpretrain trains a 1000-way head on 100 folders without a word, and its mixup needs the number a second time, in
    the data preprocessor. With this hook ``--cfg-options model.head.num_classes=100`` is all that other data needs.
    A validation set of mmpretrain's ``CustomDataset`` is numbered by its own folders, so one class that it lacks
    shifts all after it; ``mim_mm.ClassFolders`` numbers it by those of the training set.

    Raises:
        DataError: The training or validation set has other classes than the head, or they are numbered differently.
    """

    def before_train(self, runner: Runner) -> None:
        model = bare_model(runner)
        trained = bare_datasets(runner.train_dataloader.dataset)
        for dataset in trained:
            self._fits_head(dataset, 'training', model.head.num_classes)
        classes = trained[0].metainfo.get('classes')
        for dataset in bare_datasets(runner.val_dataloader.dataset) if runner.val_loop is not None else ():
            self._fits_head(dataset, 'validation', model.head.num_classes, classes)
            other = dataset.metainfo.get('classes')
            if classes is not None and other is not None and tuple(other) != tuple(classes):
                raise DataError(
                    f'The training set numbers its classes as {_shown(classes)}, the validation set as '
                    f'{_shown(other)}: they must be the same. Use type=mim_mm.ClassFolders with '
                    "classes_from='train' (the training folder) for the validation set"
                )
        self._tell_mixup(model)

    def before_test(self, runner: Runner) -> None:
        model = bare_model(runner)
        for dataset in bare_datasets(runner.test_dataloader.dataset):
            self._fits_head(dataset, 'test', model.head.num_classes)
        self._tell_mixup(model)

    @staticmethod
    def _fits_head(dataset, what: str, count: int, trained=None) -> None:
        classes, needed = dataset.metainfo.get('classes'), getattr(dataset, 'labels_needed', 0)
        if classes is not None and len(classes) != count:
            hint = f'Add --cfg-options model.head.num_classes={len(classes)}'
            if what != 'training':
                hint = "Number it by the training folder: type=mim_mm.ClassFolders, classes_from='train'"
            if trained is not None and len(trained) == count:
                strange = sorted(set(classes) - set(trained)) or sorted(set(trained) - set(classes))
                hint = f'They differ in {strange[:5]}. {hint}'
            raise DataError(f'The {what} set has {len(classes)} classes, the head {count}: they must be equal. {hint}')
        if needed > count:
            raise DataError(
                f'The {what} set has labels up to {needed - 1}, the head {count} classes (labels 0 to {count - 1}). '
                f'Add --cfg-options model.head.num_classes={needed}, or mend the list'
            )

    @staticmethod
    def _tell_mixup(model) -> None:
        if getattr(model.data_preprocessor, 'num_classes', None) is not None:
            model.data_preprocessor.num_classes = model.head.num_classes


def _shown(names) -> str:
    return f'{list(names[:3])}{"..." if len(names) > 3 else ""} ({len(names)})'


def fill_from_data(cfg: Config) -> str:
    """Take the classes from the data and write their number and names wherever a config needs them, in place.

    Detection: ``categories`` of the training annotation file, in the order of the file, which is the order in which
    mmdet numbers them; ``metainfo`` of every data set with an annotation file gets the names. Classification: the
    class folders. Every ``num_classes`` of the model and of the data preprocessor gets the number. A config asks for it
    with ``classes_from_data = True``, a command line with ``--cfg-options classes_from_data=True``.

    Returns:
        A line that says what was found.

    Raises:
        guard.ConfigError: the classes cannot be read, or another annotation file lists other ones.
    """
    datasets = [(loader, d) for loader, d in guard.iter_datasets(cfg) if d.get('type')]
    trained = next((d for loader, d in datasets if loader == 'train_dataloader' and d.get('data_root')), None)
    if trained is None:
        raise guard.ConfigError(
            'classes_from_data: train_dataloader has no data set with a data_root to read them from'
        )
    if str(trained.get('ann_file', '')).endswith('.json'):
        found, path = _categories(trained)
        for _, dataset in datasets:
            if str(dataset.get('ann_file', '')).endswith('.json'):
                other, where = _categories(dataset)
                if other != found:
                    raise guard.ConfigError(
                        f'classes_from_data: {path} and {where} list other categories, ids or orders'
                    )
                dataset['metainfo'] = dict(dataset.get('metainfo') or {}, classes=tuple(n for _, n in found))
    else:
        prefix = trained.get('data_prefix') or ''
        prefix = prefix if isinstance(prefix, str) else prefix.get('img_path') or ''
        path = os.path.join(trained['data_root'], prefix)
        if trained.get('ann_file') or not os.path.isdir(path):
            raise guard.ConfigError(
                f'classes_from_data: {path} is no folder of class folders; set num_classes yourself'
            )
        found = subfolders(path)
    if not found:
        raise guard.ConfigError(f'classes_from_data: {path} has no classes')
    _set_num_classes(cfg.model, len(found))
    if cfg.get('data_preprocessor'):
        _set_num_classes(cfg.data_preprocessor, len(found))
    return f'classes: {len(found)} from {path}'


def _categories(dataset: dict) -> tuple[list, str]:
    path = os.path.join(dataset['data_root'], dataset['ann_file'])
    try:
        return [(row['id'], row['name']) for row in files.read_json(path)['categories']], path
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise guard.ConfigError(f'classes_from_data: {path} has no categories that can be read: {error!r}') from error


def _set_num_classes(node, count: int) -> None:
    for key, item in enumerate(node) if isinstance(node, (list, tuple)) else list(node.items()):
        if key != 'rpn_head' and isinstance(item, (dict, list, tuple)):
            _set_num_classes(item, count)
    if isinstance(node, dict) and node.get('num_classes') is not None:
        node['num_classes'] = count
