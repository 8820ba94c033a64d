"""One number of classes for head, mixup and data, whatever folder the recipe is pointed at."""

from __future__ import annotations

import json
import os

from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mim_mm.engine import guard
from mim_mm.engine.bare_model import bare_model
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
        model = bare_model(runner)
        count = model.head.num_classes
        classes = runner.train_dataloader.dataset.metainfo.get('classes')
        if classes is not None and len(classes) != count:
            raise ValueError(
                f'The training set has {len(classes)} classes, the head {count}: they must be equal. '
                f'Add --cfg-options model.head.num_classes={len(classes)}'
            )
        self.before_test(runner)

    def before_test(self, runner: Runner) -> None:
        model = bare_model(runner)
        if getattr(model.data_preprocessor, 'num_classes', None) is not None:
            model.data_preprocessor.num_classes = model.head.num_classes


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
        found = sorted(entry.name for entry in os.scandir(path) if entry.is_dir())
    if not found:
        raise guard.ConfigError(f'classes_from_data: {path} has no classes')
    _set_num_classes(cfg.model, len(found))
    if cfg.get('data_preprocessor'):
        _set_num_classes(cfg.data_preprocessor, len(found))
    return f'classes: {len(found)} from {path}'


def _categories(dataset: dict) -> tuple[list, str]:
    path = os.path.join(dataset['data_root'], dataset['ann_file'])
    try:
        with open(path, encoding='utf-8') as file:
            return [(row['id'], row['name']) for row in json.load(file)['categories']], path
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise guard.ConfigError(f'classes_from_data: {path} has no categories that can be read: {error!r}') from error


def _set_num_classes(node, count: int) -> None:
    for key, item in enumerate(node) if isinstance(node, (list, tuple)) else list(node.items()):
        if key != 'rpn_head' and isinstance(item, (dict, list, tuple)):
            _set_num_classes(item, count)
    if isinstance(node, dict) and node.get('num_classes') is not None:
        node['num_classes'] = count
