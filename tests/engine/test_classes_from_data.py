"""``classes_from_data=True``: heads and data sets take the classes of whatever data a recipe is pointed at."""

import argparse
import json

import pytest
from built_recipes import CONFIGS, load
from downstream import COCO, FINETUNE

from mim_mm.engine.start import class_count, guard, launch


def options(path, **settings):
    return argparse.Namespace(
        config=str(path),
        cfg_options=settings,
        launcher='none',
        work_dir=None,
        seed=None,
        data_root=None,
        trust_pickle=False,
    )


def rename(root, split, categories):
    path = root / 'annotations' / f'instances_{split}.json'
    path.write_text(json.dumps(json.loads(path.read_text()) | dict(categories=categories)))


def test_detection_recipe_takes_its_classes_from_the_file(coco_root):
    categories = [dict(id=i, name=f'kind {i}') for i in (1, 2, 40)]
    for split in ('train2017', 'val2017'):
        rename(coco_root, split, categories)
    cfg = launch.load_config(options(CONFIGS / COCO, classes_from_data=True))
    assert cfg.model.roi_head.bbox_head.num_classes == cfg.model.roi_head.mask_head.num_classes == 3
    assert 'num_classes' not in cfg.model.rpn_head
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        assert loader.dataset.metainfo.classes == ('kind 1', 'kind 2', 'kind 40')
    # Left at COCO's 80 classes it would train on no box at all.
    with pytest.raises(guard.ConfigError, match='none of its annotations .*classes_from_data=True'):
        launch.load_config(options(CONFIGS / COCO))


def test_files_that_number_their_classes_differently_stop(coco_root):
    rename(coco_root, 'val2017', [dict(id=2, name='bicycle'), dict(id=1, name='person')])
    with pytest.raises(guard.ConfigError, match='other categories, ids or orders'):
        launch.load_config(options(CONFIGS / COCO, classes_from_data=True))
    rename(coco_root, 'val2017', None)
    with pytest.raises(guard.ConfigError, match="no 'categories'"):
        launch.load_config(options(CONFIGS / COCO, classes_from_data=True))


def test_classification_recipe_counts_its_folders(image_folders):
    cfg = launch.load_config(options(CONFIGS / FINETUNE, classes_from_data=True))
    assert cfg.model.head.num_classes == cfg.data_preprocessor.num_classes == 3
    cfg = load(FINETUNE)
    cfg.train_dataloader.dataset.ann_file = 'list.txt'
    with pytest.raises(guard.ConfigError, match='set num_classes yourself'):
        class_count.fill_from_data(cfg)


def test_a_config_that_enables_scaling_is_scaled_once_and_without_a_warning():
    cfg = load(FINETUNE)
    cfg.merge_from_dict({'auto_scale_lr.enable': True, 'train_dataloader.batch_size': 64, 'work_dir': 'none'})
    args = argparse.Namespace(
        auto_scale_lr=False, amp=False, launcher='none', resume=None, compile=False, allow_change=[], log=[]
    )
    notes = launch._prepare_training(cfg, args)
    assert cfg.optim_wrapper.optimizer.lr == pytest.approx(2e-3 * 64 / 1024)
    assert not cfg.auto_scale_lr.enable, 'or mmengine would scale it again'
    assert not any('WARNING' in note for note in notes)
