"""The demo data: same bytes twice, held-out digits stay held out, and annotations that say what the pixels say."""

import json

import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO
from sklearn.datasets import load_digits

from mim_mm.data.digits import DemoRecipe, demo_root, digit_split, make_demo_data, render_scene, tree_sha256

pytestmark = pytest.mark.slow

SMALL = DemoRecipe(train_scenes=12, val_scenes=6, renderings=1)


@pytest.fixture(scope='module')
def demo(tmp_path_factory):
    root = tmp_path_factory.mktemp('data') / 'demo'
    identity, written = make_demo_data(root, SMALL)
    assert written
    return root, identity


def test_split_is_stratified_disjoint_and_complete():
    split = digit_split()
    train, val = split['train'], split['val']
    assert len(train[2]) == 1437 and len(val[2]) == 360
    assert sorted([*train[2], *val[2]]) == list(range(1797))
    data = load_digits()
    for glyphs, labels, ids in split.values():
        assert np.array_equal(labels, data.target[ids])
        assert np.allclose(glyphs * 16, data.images[ids])
    share = np.bincount(data.target) * 360 / 1797
    assert np.abs(np.bincount(val[1]) - share).max() < 1


def test_second_call_does_nothing_and_a_fresh_one_gives_the_same_bytes(demo, tmp_path):
    root, identity = demo
    before = {p: p.stat().st_mtime_ns for p in root.rglob('*')}
    again, written = make_demo_data(root, SMALL)
    assert not written and again == identity
    assert {p: p.stat().st_mtime_ns for p in root.rglob('*')} == before
    fresh, _ = make_demo_data(tmp_path / 'fresh', SMALL)
    assert fresh['sha256'] == identity['sha256'] == tree_sha256(root)


def test_hash_notices_one_changed_pixel_and_a_renamed_file(tmp_path):
    identity, _ = make_demo_data(tmp_path / 'd', SMALL)
    path = next((tmp_path / 'd' / 'unlabelled').glob('*.png'))
    path.rename(path.with_name('other.png'))
    assert tree_sha256(tmp_path / 'd') != identity['sha256']
    path.with_name('other.png').rename(path)
    assert tree_sha256(tmp_path / 'd') == identity['sha256']
    image = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    image[0, 0] ^= 1
    cv2.imwrite(str(path), image)
    assert tree_sha256(tmp_path / 'd') != identity['sha256']


def test_layout(demo):
    root, identity = demo
    for name, count in (('train', 1437), ('val', 360)):
        assert sorted(p.name for p in (root / 'digits' / name).iterdir()) == [str(d) for d in range(10)]
        files = list((root / 'digits' / name).rglob('*.png'))
        assert len(files) == count
        assert cv2.imread(str(files[0]), cv2.IMREAD_UNCHANGED).shape == (32, 32)
    unlabelled = {int(p.name[:4]) for p in (root / 'unlabelled').glob('*.png')}
    assert unlabelled == set(digit_split()['train'][2])  # no held-out digit is pretrained on
    assert json.loads((root / 'identity.json').read_text()) == identity
    assert not [p for p in root.parent.iterdir() if p.name.startswith('.demo')]


@pytest.mark.parametrize('name,count', [('train', 12), ('val', 6)])
def test_coco_annotations_say_what_the_pixels_say(demo, name, count):
    root, _ = demo
    coco = COCO(str(root / 'coco' / 'annotations' / f'instances_{name}2017.json'))
    allowed = {int(i): int(d) for i, d in zip(*[digit_split()[name][k] for k in (2, 1)])}
    assert len(coco.imgs) == count and len(coco.cats) == 10
    for image_id, info in coco.imgs.items():
        picture = cv2.imread(str(root / 'coco' / f'{name}2017' / info['file_name']), cv2.IMREAD_GRAYSCALE)
        assert picture.shape == (info['height'], info['width'])
        annotations = coco.imgToAnns[image_id]
        assert 2 <= len(annotations) <= 6
        total = np.zeros(picture.shape, int)
        boxes = np.zeros(picture.shape, int)
        for ann in annotations:
            mask = coco.annToMask(ann)
            total += mask
            assert mask.sum() == ann['area'] > 0
            ys, xs = np.nonzero(mask)
            assert ann['bbox'] == [xs.min(), ys.min(), np.ptp(xs) + 1, np.ptp(ys) + 1]
            x, y, w, h = ann['bbox']
            boxes[y : y + h, x : x + w] += 1
            assert max(w, h) <= 48
            assert allowed[ann['glyph']] == int(coco.cats[ann['category_id']]['name'])
            # ink is lighter than any ground
            assert picture[mask == 1].mean() > picture[total == 0].mean() + 25
        assert total.max() == 1 and boxes.max() == 1  # masks and boxes never overlap


def test_scenes_do_not_depend_on_how_many_are_made(demo, tmp_path):
    root, _ = demo
    make_demo_data(tmp_path / 'more', DemoRecipe(train_scenes=14, val_scenes=6, renderings=1))
    for path in (root / 'coco' / 'train2017').iterdir():
        assert path.read_bytes() == (tmp_path / 'more' / 'coco' / 'train2017' / path.name).read_bytes()


def test_scene_too_small_for_its_digits_is_refused():
    glyphs, labels, _ = digit_split()['train']
    with pytest.raises(ValueError, match='scene_size larger or digit_side smaller'):
        render_scene(glyphs, labels, np.random.RandomState(0), DemoRecipe(scene_size=50, digit_side=(40, 48)))


def test_other_recipe_replaces_ours_but_foreign_folders_are_left_alone(tmp_path):
    root = tmp_path / 'demo'
    make_demo_data(root, DemoRecipe(train_scenes=3, val_scenes=2, renderings=1))
    identity, written = make_demo_data(root, DemoRecipe(train_scenes=2, val_scenes=2, renderings=1))
    assert written and len(list((root / 'coco' / 'train2017').iterdir())) == 2 == identity['counts']['scenes_train']
    foreign = tmp_path / 'mine'
    foreign.mkdir()
    (foreign / 'thesis.tex').write_text('precious')
    with pytest.raises(FileExistsError, match='left alone'):
        make_demo_data(foreign, SMALL)
    assert [p.name for p in foreign.iterdir()] == ['thesis.tex']


def test_failure_leaves_nothing_behind(tmp_path):
    impossible = DemoRecipe(scene_size=50, digit_side=(40, 48), train_scenes=1, val_scenes=1, renderings=0)
    with pytest.raises(ValueError):
        make_demo_data(tmp_path / 'demo', impossible)
    assert list(tmp_path.iterdir()) == []


def test_root_comes_from_the_environment(monkeypatch):
    monkeypatch.setenv('DEMO_ROOT', 'elsewhere')
    assert demo_root() == 'elsewhere'
    monkeypatch.delenv('DEMO_ROOT')
    assert demo_root() == 'data/demo'
