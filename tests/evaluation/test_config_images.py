"""tools/knn.py, lowshot.py and watch.py measure on the data that the config names: lists, folders, parts, classes."""

import argparse

import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image

from mim_mm.evaluation.frozen import command
from mim_mm.evaluation.frozen.config_images import labelled_images
from mim_mm.evaluation.frozen.features import Preprocess
from mim_mm.evaluation.quality.quality_watch import WatchCall, prepare

PREPROCESS = Preprocess(resize=36, crop=32)
ARCH = dict(embed_dims=32, num_layers=4, num_heads=2, feedforward_channels=64)


@pytest.fixture
def place(tmp_path):
    """One tree of three classes, divided by lists; classes in another order than the alphabet's."""
    rows = []
    for label, name in enumerate(('cat', 'ant', 'bee')):
        for i in range(4):
            path = tmp_path / 'tree' / name / f'{i}.png'
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((40, 48, 3), 40 * label + i, np.uint8)).save(path)
            rows.append((f'{name}/{i}.png', label))
    for part, chosen in (('train', rows[::2]), ('val', [r for r in rows[1::2] if r[1] != 0])):
        (tmp_path / f'{part}.txt').write_text(''.join(f'{name} {label}\n' for name, label in chosen))
    return tmp_path


def config(place, **changes):
    common = dict(
        type='CustomDataset', data_root=str(place / 'tree'), data_prefix='', pipeline=[dict(type='LoadImageFromFile')]
    )
    common['metainfo'] = dict(classes=('cat', 'ant', 'bee'))
    loaders = {
        f'{p}_dataloader': dict(dataset=dict(common, ann_file=str(place / f'{p}.txt'))) for p in ('train', 'val')
    }
    backbone = dict(type='VisionTransformer', arch=ARCH, img_size=32, patch_size=8)
    base = dict(
        default_scope='mmpretrain', data_root='data/imagenet', model=dict(backbone=backbone, head=dict(num_classes=3))
    )
    return Config({**base, **loaders, **changes})


def test_lists_and_label_order_are_those_of_the_config(place):
    train, val = labelled_images(config(place), PREPROCESS)
    assert train.classes == val.classes == ('cat', 'ant', 'bee')
    listed = [line.split() for line in (place / 'train.txt').read_text().splitlines()]
    assert train.items == [(name, int(label)) for name, label in listed]
    assert [label for _, label in val.items] == [1, 1, 2, 2], 'a class that val lacks does not shift the others'
    image, label = val[0]
    assert image.shape == (3, 32, 32) and label == 1 and int(image.float().mean()) == 41
    assert train.digest() != val.digest()


def test_a_quick_probe_gives_all_of_train_and_its_test_set(place):
    probe = dict(config(place).train_dataloader.dataset, type='mim_mm.ProbeImages')
    test = dict(probe, ann_file=str(place / 'val.txt'), part='report')
    joined = dict(type='ConcatDataset', datasets=[dict(probe, part='choose', fraction=0.5), test])
    cfg = config(
        place, train_dataloader=dict(dataset=dict(probe, part='fit', fraction=0.5)), val_dataloader=dict(dataset=joined)
    )
    train, val = labelled_images(cfg, PREPROCESS)
    assert (len(train), len(val)) == (6, 4)


def test_another_root_and_pretraining_configs_keep_their_layout(place):
    for part in ('train', 'val'):
        (place / 'folders' / part).mkdir(parents=True)
        for name in ('ant', 'bee'):
            (place / 'folders' / part / name).symlink_to(place / 'tree' / name)
    for cfg, root in ((config(place), place / 'folders'), (Config(dict(data_root=str(place / 'folders'))), None)):
        train, val = labelled_images(cfg, PREPROCESS, root)
        assert train.classes == ('ant', 'bee') and len(train) == len(val) == 8
    with pytest.raises(ValueError, match='--data-root'):
        labelled_images(Config(), PREPROCESS)


@pytest.mark.slow
def test_parts_for_processes_cover_the_whole(place):
    parts = [labelled_images(config(place), PREPROCESS, share=(i, 3)) for i in range(3)]
    whole = labelled_images(config(place), PREPROCESS)
    assert [item for part in parts for item in part[0].items] == whole[0].items
    assert all(torch.equal(part[0][0][0], whole[0][2 * i][0]) for i, part in enumerate(parts))


def test_the_tools_read_it(place):
    path = place / 'linear.py'
    config(place).dump(path)
    parser = argparse.ArgumentParser()
    command.add_feature_arguments(parser)
    call = [str(path), 'random', '--work-dir', str(place / 'out'), '--workers', '0', '--device', 'cpu', '--crop', '32']
    train, val, _ = command.frozen_features(parser.parse_args(call))
    assert (len(train.labels), len(val.labels)) == (6, 4) and train.classes == ('cat', 'ant', 'bee')
    _, data = prepare(WatchCall(str(place / 'none'), config=str(path), settings=dict(workers=0)))
    assert (len(data.train), len(data.val)) == (6, 4) and data.classes == ('cat', 'ant', 'bee')
    with pytest.raises(FileNotFoundError, match='none.txt'):
        labelled_images(
            config(
                place,
                val_dataloader=dict(dataset=dict(type='CustomDataset', data_root=str(place), ann_file='none.txt')),
            ),
            PREPROCESS,
        )
