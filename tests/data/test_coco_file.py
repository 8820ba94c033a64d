"""Annotation files of others: read, checked, completed, divided; and class folders."""

import json

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from mim_mm.data import class_folders, coco_file
from mim_mm.data.image_sources import SourceError
from mim_mm.folders import DataError

POLYGON = [[1, 1, 9, 1, 9, 9]]


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / 'pictures'
    folder.mkdir()
    for i in range(10):
        Image.fromarray(np.zeros((20 + i, 30, 3), np.uint8)).save(folder / f'{i}.png')
    return folder


def content(**changes):
    """Ten images of one box each, categories 7, 3, 90 in that order."""
    base = dict(
        images=[dict(id=100 + i, file_name=f'{i}.png', width=30, height=20 + i) for i in range(10)],
        annotations=[
            dict(id=i + 1, image_id=100 + i, category_id=(7, 3, 90)[i % 3], bbox=[1, 1, 8, 8], area=30, iscrowd=0,
                 segmentation=POLYGON)
            for i in range(10)
        ],
        categories=[dict(id=7, name='seven'), dict(id=3, name='three'), dict(id=90, name='ninety')],
    )  # fmt: skip
    return base | changes


def write(folder, value):
    path = folder / 'ann.json'
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return str(path)


def test_classes_are_in_the_order_of_their_ids_and_agree_with_pycocotools(tmp_path, images):
    coco = coco_file.read_coco(write(tmp_path, content()), str(images))
    assert coco.classes == ('three', 'seven', 'ninety') and coco.changed and coco.masks and not coco.notes
    (tmp_path / 'out.json').write_text(json.dumps(coco.content))
    api = COCO(str(tmp_path / 'out.json'))
    # this is how mmdet numbers the classes: position in what getCatIds gives
    label = {cat: i for i, cat in enumerate(api.getCatIds(catNms=list(coco.classes)))}
    assert [coco.classes[label[c]] for c in (7, 3, 90)] == ['seven', 'three', 'ninety']
    same = content(categories=sorted(content()['categories'], key=lambda c: c['id']))
    assert not coco_file.read_coco(write(tmp_path, same), str(images)).changed


def test_what_training_needs_is_filled_in(tmp_path, images):
    value = content()
    for row in value['annotations']:
        del row['area'], row['iscrowd'], row['id']
    del value['images'][4]['height']
    coco = coco_file.read_coco(write(tmp_path, value), str(images))
    first = coco.content['annotations'][0]
    assert (first['area'], first['iscrowd']) == (64, 0) and coco.changed
    assert sorted(a['id'] for a in coco.content['annotations']) == list(range(1, 11))
    assert coco.content['images'][4]['height'] == 24 and 'filled in' in coco.notes[-1]


def test_boxes_without_masks_are_noticed(tmp_path, images):
    value = content()
    for place in range(6):
        value['annotations'][place]['segmentation'] = []
    coco = coco_file.read_coco(write(tmp_path, value), str(images))
    assert not coco.masks and coco.notes == [
        '6 of 10 boxes have no mask: a box detector (Faster R-CNN) is trained, no mask AP'
    ]


def test_missing_images_and_empty_boxes_are_left_out_and_counted(tmp_path, images):
    value = content()
    (images / '3.png').unlink()
    value['annotations'][5]['bbox'] = [1, 1, 0, 8]
    value['annotations'][6]['image_id'] = 999
    coco = coco_file.read_coco(write(tmp_path, value), str(images))
    assert [row['id'] for row in coco.content['images']] == [100, 101, 102, 104, 105, 106, 107, 108, 109]
    assert [a['id'] for a in coco.content['annotations']] == [1, 2, 3, 5, 8, 9, 10]
    assert coco.notes[0].startswith('1 of 10 images are not in') and coco.notes[1].startswith('2 boxes without area')


@pytest.mark.parametrize(
    'value, message',
    [
        ('{', 'cannot be read as JSON'),
        ([], "has no 'images'"),
        (content(annotations=[]), "has no 'annotations'"),
        (content(categories=[dict(id=1, name='a'), dict(id=2, name='a')]), "name 'a' is there twice"),
        (content(categories=[dict(id=7, name='a'), dict(id=7, name='b')]), 'id 7 is there twice'),
        (content(categories=[dict(id=7, name='a')]), r'category \[3, 90\]'),
        (content(images=[dict(id=1, file_name='lost.png')]), 'none of its 1 images'),
        (content(images=[dict(id=1)]), "no 'file_name'"),
    ],
)
def test_files_that_cannot_be_used(tmp_path, images, value, message):
    with pytest.raises(SourceError, match=message):
        coco_file.read_coco(write(tmp_path, value), str(images))


def test_dividing_is_fixed_by_the_seed_and_loses_nothing(tmp_path, images):
    value = content()
    del value['annotations'][9]
    coco = coco_file.read_coco(write(tmp_path, value), str(images))
    parts = coco_file.divide(coco, 0.3)
    ids = [{row['id'] for row in part.content['images']} for part in parts]
    assert ids[0] | ids[1] == set(range(100, 110)) and not ids[0] & ids[1] and len(ids[1]) == 3
    for part, own in zip(parts, ids):
        assert {a['image_id'] for a in part.content['annotations']} <= own and part.classes == coco.classes
    assert sum(len(part.content['annotations']) for part in parts) == 9
    again = coco_file.divide(coco, 0.3)
    assert [part.content for part in again] == [part.content for part in parts]
    others = [{r['id'] for r in coco_file.divide(coco, 0.3, seed)[1].content['images']} for seed in range(1, 5)]
    assert any(other != ids[1] for other in others)
    with pytest.raises(SourceError, match='between 0 and 1'):
        coco_file.divide(coco, 1.0)


def test_both_files_must_number_classes_alike(tmp_path, images):
    one = coco_file.read_coco(write(tmp_path, content()), str(images))
    other = content(categories=[dict(id=7, name='three'), dict(id=3, name='seven'), dict(id=90, name='ninety')])
    coco_file.same_classes(one, one)
    with pytest.raises(SourceError, match='same ids'):
        coco_file.same_classes(one, coco_file.read_coco(write(tmp_path, other), str(images)))


# ---------------------------------------------------------------- class folders


def test_tree_with_both_parts(tmp_path):
    for name in ('train/b', 'train/a', 'valid/a', 'train/.hidden'):
        (tmp_path / name).mkdir(parents=True)
    assert class_folders.tree_parts(str(tmp_path)) == ('train', 'valid')
    names = {'train': ['a/1.png', 'b/x/2 2.png', 'stray.png'], 'valid': ['b/3.png', 'a/4.png']}
    lists = class_folders.class_lists(str(tmp_path), 'train', 'valid', names)
    assert lists.classes == ('a', 'b') and lists.text('train') == 'train/a/1.png 0\ntrain/b/x/2 2.png 1\n'
    assert lists.text('val') == 'valid/a/4.png 0\nvalid/b/3.png 1\n'
    with pytest.raises(DataError, match=r"train lacks \(\['c'\]\)"):  # one sentence for every entry point
        class_folders.class_lists(str(tmp_path), 'train', 'valid', {**names, 'valid': ['c/1.png', 'a/2.png']})


def test_one_tree_is_divided_class_by_class(tmp_path):
    names = {'': [f'{c}/{i:02}.png' for c, count in (('a', 20), ('b', 3), ('c', 1)) for i in range(count)]}
    lists = class_folders.class_lists(str(tmp_path), '', None, names, 0.2)
    train, val = set(lists.train), set(lists.val)
    assert not train & val and {name for name, _ in train | val} == set(names[''])
    assert [sum(label == k for _, label in val) for k in range(3)] == [4, 1, 0], 'a fifth, at least one, and one stays'
    assert lists == class_folders.class_lists(str(tmp_path), '', None, {'': names[''][::-1]}, 0.2), (
        'order does not matter'
    )
    more = {'': [*names[''], 'd/1.png', 'd/2.png']}
    now = class_folders.class_lists(str(tmp_path), '', None, more, 0.2)
    assert {row for row in now.val if row[1] < 3} == val, 'a new class behind leaves the others as they were'
    with pytest.raises(SourceError, match='1 class'):
        class_folders.class_lists(str(tmp_path), '', None, {'': ['a/1.png', 'a/2.png']})


def test_tree_without_folders(tmp_path):
    with pytest.raises(SourceError, match='no folders'):
        class_folders.tree_parts(str(tmp_path))
    with pytest.raises(SourceError, match='there is no folder'):
        class_folders.tree_parts(str(tmp_path / 'none'))
    (tmp_path / 'train' / 'a').mkdir(parents=True)
    assert class_folders.tree_parts(str(tmp_path)) == ('train', None)
