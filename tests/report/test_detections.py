"""Arrays behind the detection picture, from the demo's own config on a small demo set with random weights."""

from pathlib import Path

import numpy as np
import pytest
import torch

import mim_mm  # noqa: F401

pytestmark = pytest.mark.slow

CONFIG = Path(__file__).resolve().parents[2] / 'configs' / 'demo' / 'mask_rcnn.py'


@pytest.fixture(scope='module')
def detector(tmp_path_factory):
    """The small demo set, and random weights of the demo's detector."""
    from mmengine.config import Config
    from mmengine.registry import init_default_scope

    from mim_mm.data.digits import DemoRecipe, make_demo_data

    folder = tmp_path_factory.mktemp('detector')
    make_demo_data(folder / 'demo', DemoRecipe(train_scenes=1, val_scenes=4, renderings=0))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('DEMO_ROOT', str(folder / 'demo'))
        cfg = Config.fromfile(str(CONFIG))
        init_default_scope('mmdet')
        from mmdet.registry import MODELS

        torch.manual_seed(0)
        model = MODELS.build(cfg.model)
        model.init_weights()
        torch.save(dict(state_dict=model.state_dict()), folder / 'full.pth')
        torch.save(dict(state_dict=dict(list(model.state_dict().items())[5:])), folder / 'part.pth')
        yield folder


def test_truth_is_the_annotation_and_found_is_filtered(detector):
    from pycocotools.coco import COCO

    from mim_mm.evaluation.pictures.detections import detect_scenes

    names = ['000000000003.png', 'somewhere/000000000001.png']
    result = detect_scenes(CONFIG, detector / 'full.pth', names, above=0.0)
    assert result['classes'] == [str(i) for i in range(10)] and len(result['scenes']) == 2
    coco = COCO(str(detector / 'demo' / 'coco' / 'annotations' / 'instances_val2017.json'))
    for image_id, scene in zip((3, 1), result['scenes']):
        assert scene['image'].shape == (128, 128, 3) and scene['image'].dtype == np.uint8
        annotations = coco.imgToAnns[image_id]
        assert len(scene['truth']) == len(annotations)
        for instance, ann in zip(scene['truth'], annotations):
            assert instance['label'] == ann['category_id'] - 1 and instance['score'] is None
            assert np.array_equal(instance['mask'], coco.annToMask(ann).astype(bool))
            x, y, w, h = ann['bbox']
            assert np.allclose(instance['box'], [x, y, x + w, y + h])
        assert all(i['mask'].shape == (128, 128) and i['mask'].dtype == bool for i in scene['found'])
    scores = [i['score'] for scene in result['scenes'] for i in scene['found']]
    assert scores and 0 < min(scores) <= max(scores) < 1
    middle = sorted(scores)[len(scores) // 2]
    some = detect_scenes(CONFIG, detector / 'full.pth', names, above=middle)
    kept = [i['score'] for scene in some['scenes'] for i in scene['found']]
    assert kept == [score for score in scores if score > middle] and len(kept) < len(scores)
    assert len(detect_scenes(CONFIG, detector / 'full.pth', limit=3)['scenes']) == 3


def test_pictures_are_in_the_coordinates_of_the_file_when_the_model_sees_another_size(detector, tmp_path):
    from mmengine.config import Config

    from mim_mm.evaluation.pictures.detections import detect_scenes

    cfg = Config.fromfile(str(CONFIG))
    pipeline = [step for step in cfg.val_dataloader.dataset.pipeline if step['type'] != 'Resize']
    pipeline[-1]['meta_keys'] = ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')
    resize = dict(type='Resize', scale=(192, 192), keep_ratio=True)
    cfg.val_dataloader.dataset.pipeline = [pipeline[0], resize, *pipeline[1:]]
    cfg.model.data_preprocessor.pad_size_divisor = 192
    cfg.dump(tmp_path / 'larger.py')
    names = ['000000000003.png']
    plain = detect_scenes(CONFIG, detector / 'full.pth', names, above=0.0)['scenes'][0]
    larger = detect_scenes(tmp_path / 'larger.py', detector / 'full.pth', names, above=0.0)['scenes'][0]
    assert np.array_equal(larger['image'], plain['image']) and larger['image'].shape == (128, 128, 3)
    for mine, theirs in zip(larger['truth'], plain['truth']):
        assert np.array_equal(mine['mask'], theirs['mask']) and np.array_equal(mine['box'], theirs['box'])
    boxes = np.array([i['box'] for i in larger['found']])
    assert len(boxes) and boxes.max() <= 128 and all(i['mask'].shape == (128, 128) for i in larger['found'])


def test_refuses_images_without_truth_and_other_weights(detector):
    from mim_mm.evaluation.pictures.detections import detect_scenes

    with pytest.raises(ValueError, match='cat.png is not in the test set'):
        detect_scenes(CONFIG, detector / 'full.pth', ['cat.png'])
    with pytest.raises(ValueError, match='does not fit the config'):
        detect_scenes(CONFIG, detector / 'part.pth')
