"""The COCO files of a config, before training: refused with the id, or mended for data sets and evaluators."""

import copy
import json

import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image

from mim_mm.engine.start import annotations, guard, launch
from mim_mm.transfer import ChainError, datasets

POLYGON = [4, 4, 24, 4, 24, 24, 4, 24]


def file_content(**change):
    rows = [dict(id=i + 1, file_name=f'{i}.png', width=48, height=40) for i in range(4)]
    anns = [
        dict(id=i + 1, image_id=i + 1, category_id=1 + i % 2, bbox=[4, 4, 20, 20], area=400, iscrowd=0,
             segmentation=[list(POLYGON)])
        for i in range(4)
    ]  # fmt: skip
    anns[0].update(change)
    return dict(images=rows, annotations=anns, categories=[dict(id=1, name='ant'), dict(id=2, name='bee')])


CONFIG = """
load = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True, with_mask=True)]
where = dict(type='CocoDataset', data_root={root!r}, metainfo=dict(classes=('ant', 'bee')), pipeline=load)
model, optim_wrapper = dict(type='mmdet.MaskRCNN'), dict(optimizer=dict(type='SGD', lr=0.1))
train_cfg, val_cfg, test_cfg = dict(by_epoch=True, max_epochs=1), dict(), dict()
default_scope = 'mmdet'
each = dict(sampler=dict(type='DefaultSampler'))
train_dataloader = dict(each, batch_size=1, dataset=dict(
    type='RepeatDataset', times=2, dataset=dict(where, ann_file='train.json', data_prefix=dict(img='train/'))))
val_dataloader = dict(each, batch_size=1, dataset=dict(where, ann_file='val.json', data_prefix=dict(img='val/')))
test_dataloader = val_dataloader
val_evaluator = [dict(type='CocoMetric', ann_file={root!r} + '/val.json', metric=['bbox', 'segm'])]
test_evaluator = val_evaluator
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setenv('MIM_MM_CACHE', str(tmp_path / 'cache'))
    for part in ('train', 'val'):
        (tmp_path / part).mkdir()
        for i in range(4):
            Image.fromarray(np.zeros((40, 48, 3), np.uint8)).save(tmp_path / part / f'{i}.png')
        (tmp_path / f'{part}.json').write_text(json.dumps(file_content()))
    (tmp_path / 'config.py').write_text(CONFIG.format(root=str(tmp_path)))
    return tmp_path


def check(place, **options):
    cfg, said = Config.fromfile(place / 'config.py'), []
    cfg.merge_from_dict(options)
    annotations.check_annotations(cfg, place / 'work', said.append)
    return cfg, said


def files(cfg):
    return [
        cfg.train_dataloader.dataset.dataset.ann_file, cfg.val_dataloader.dataset.ann_file,
        cfg.test_dataloader.dataset.ann_file, cfg.val_evaluator[0].ann_file, cfg.test_evaluator[0].ann_file,
    ]  # fmt: skip


def test_sound_files_stay_and_are_looked_at_once(place, monkeypatch):
    cfg, said = check(place)
    assert files(cfg) == ['train.json', 'val.json', 'val.json', *[f'{place}/val.json'] * 2] and not said
    assert not (place / 'work').exists()
    monkeypatch.setattr(annotations, 'read_coco', None)  # called, it would fail
    assert files(check(place)[0]) == files(cfg)
    (place / 'val.json').write_text(json.dumps(file_content(area=399)))
    with pytest.raises(TypeError):
        check(place)


def test_a_bad_polygon_in_val_is_mended_for_data_set_and_evaluator(place, monkeypatch):
    (place / 'val.json').write_text(json.dumps(file_content(segmentation=[POLYGON, [1, 2, 3, 4]])))
    cfg, said = check(place)
    train, *others = files(cfg)
    assert train == 'train.json' and len(set(others)) == 1 and others[0].startswith(str(place / 'work' / 'annotations'))
    assert json.loads(open(others[0]).read())['annotations'][0]['segmentation'] == [POLYGON]
    assert 'val_dataloader' in said[0] and '(annotation 1)' in said[0] and 'mended copy' in said[-1]
    for rank in ('1', '0'):
        monkeypatch.setenv('RANK', rank)
        again, heard = check(place)
        assert files(again) == files(cfg) and bool(heard) == (rank == '0')
    assert json.loads((place / 'val.json').read_text()) == file_content(segmentation=[POLYGON, [1, 2, 3, 4]])


@pytest.mark.parametrize(
    'change, message',
    [
        (dict(segmentation=dict(size=[48, 40], counts=[1920])), 'val.json.*mask of annotation 1'),
        (dict(bbox=None, segmentation=None), 'val.json.*bbox of annotation 1'),
        (dict(category_id=7), 'annotation 1'),
    ],
)
def test_no_single_meaning_stops_training_testing_and_the_chain(place, change, message, capsys):
    (place / 'val.json').write_text(json.dumps(file_content(**change)))
    with pytest.raises(guard.ConfigError, match=message):
        check(place)
    with pytest.raises(SystemExit):
        launch.train_main([str(place / 'config.py'), '--work-dir', str(place / 'run')])
    with pytest.raises(SystemExit):
        launch.test_main([str(place / 'config.py'), 'none.pth', '--work-dir', str(place / 'run')])
    assert capsys.readouterr().err.count('annotation 1') == 2
    with pytest.raises(ChainError, match=message):
        datasets.require(dict(detect=Config.fromfile(place / 'config.py')))


def test_the_chain_does_not_change_its_configs(place):
    (place / 'val.json').write_text(json.dumps(file_content(area='400')))
    cfg = Config.fromfile(place / 'config.py')
    before = copy.deepcopy(cfg.to_dict())
    datasets.require(dict(detect=cfg))
    assert cfg.to_dict() == before


def test_a_part_of_the_images_is_no_set(place):
    (place / 'val' / '2.png').unlink()
    with pytest.raises(guard.ConfigError, match='1 of its 4 images are not there, the first is image 3'):
        check(place)


def test_masks_are_asked_of_recipes_with_masks_only(place):
    content = file_content()
    for row in content['annotations'][:3]:
        del row['segmentation']
    for part in ('train', 'val'):
        (place / f'{part}.json').write_text(json.dumps(content))
    with pytest.raises(guard.ConfigError, match='3 of 4 boxes have no usable mask .*recipe without a mask head'):
        check(place)
    load = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True)]
    boxes = {'train_dataloader.dataset.dataset.pipeline': load, 'val_dataloader.dataset.pipeline': load}
    boxes |= {'test_dataloader.dataset.pipeline': load, 'val_evaluator': [dict(type='CocoMetric', metric='bbox')]}
    assert not check(place, **boxes, test_evaluator=None)[1]


def test_empty_boxes_of_a_training_file_are_not_worth_a_copy(place):
    """mmdet passes over them itself. In a validation file they would count as missed."""
    for part in ('train', 'val'):
        (place / f'{part}.json').write_text(json.dumps(file_content(bbox=[4, 4, 0, 20])))
    cfg, said = check(place)
    assert files(cfg)[0] == 'train.json' and 'work/annotations' in files(cfg)[1] and '(annotation 1)' in said[0]


def test_labels_of_a_validation_file_that_lacks_a_class_are_not_shifted(place):
    from mmdet.datasets import CocoDataset

    content = file_content()
    content['categories'] = content['categories'][1:]
    content['annotations'] = [a for a in content['annotations'] if a['category_id'] == 2]
    (place / 'val.json').write_text(json.dumps(content))
    cfg, _ = check(place)
    data = CocoDataset(
        **{k: v for k, v in cfg.val_dataloader.dataset.items() if k not in ('type', 'pipeline')}, pipeline=[]
    )
    assert {i['bbox_label'] for n in range(len(data)) for i in data.get_data_info(n)['instances']} == {1}, 'bee'


def test_classes_of_another_set(place):
    other = {f'{part}_dataloader.dataset.metainfo.classes': ('cat', 'dog') for part in ('val', 'test')}
    with pytest.raises(guard.ConfigError, match='none of its annotations is of a class .*it has ant, bee'):
        check(place, **other)
    (place / 'config.py').write_text(CONFIG.format(root=str(place)) + 'classes_from_data = True\n')
    assert not check(place)[1]
    one = {'train_dataloader.dataset.dataset.metainfo.classes': ('ant',), 'classes_from_data': False}
    assert any(
        '2 annotations of classes that the config does not list are not used: bee' in line
        for line in check(place, **one)[1]
    )
