"""Predictions from Python are those of the model, by names of its classes; what is no such model is refused."""

import json
import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from PIL import Image
from tiny_run import ROOT

import mim_mm
from mim_mm.checkpoint.read import LoadError
from mim_mm.registry import MODELS

CLASSIFIER = """
default_scope = 'mmpretrain'
data_preprocessor = dict(mean=[120.0, 110.0, 100.0], std=[60.0, 50.0, 40.0], to_rgb=True, num_classes=3)
model = dict(
    type='ImageClassifier',
    backbone=dict(type='VisionTransformer', img_size=32, patch_size=8,
                  arch=dict(embed_dims=32, num_layers=1, num_heads=2, feedforward_channels=64)),
    head=dict(type='VisionTransformerClsHead', num_classes=3, in_channels=32))
pipeline = [
    dict(type='mim_mm.LoadImageFromFile'),
    dict(type='ResizeEdge', scale=36, edge='short', backend='pillow', interpolation='bicubic'),
    dict(type='CenterCrop', crop_size=32),
    dict(type='PackInputs'),
]
test_dataloader = dict(dataset=dict(type='ImageNet', pipeline=pipeline))
"""


def saved(cfg, path, classes):
    """A checkpoint as mmengine writes it, with random weights."""
    init_default_scope(cfg.default_scope)
    torch.manual_seed(0)
    if 'data_preprocessor' in cfg:
        cfg.model.data_preprocessor = dict(cfg.data_preprocessor)
    model = MODELS.build(cfg.model)
    model.init_weights()
    torch.nn.init.normal_(next(p for n, p in reversed(list(model.named_parameters())) if n.endswith('weight')), std=1.0)
    torch.save(
        dict(state_dict=model.state_dict(), meta=dict(cfg=cfg.pretty_text, dataset_meta=dict(classes=classes))), path
    )
    return model.eval()


@pytest.fixture(scope='module')
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp('models')
    (folder / 'classifier.py').write_text(CLASSIFIER)
    for i in range(3):
        pixels = np.random.default_rng(i).integers(0, 256, (36, 44, 3), np.uint8)
        (folder / 'images').mkdir(exist_ok=True)
        cv2.imwrite(str(folder / 'images' / f'{i}.png'), pixels)
    saved(Config.fromfile(folder / 'classifier.py'), folder / 'classifier.pth', ('ant', 'bee', 'cat'))
    return folder


def images(place):
    return sorted((place / 'images').glob('*.png'))


def test_classes_are_those_of_the_model(place):
    found = mim_mm.api.predict(place / 'classifier.pth', images(place), top=2)
    cfg = Config.fromfile(place / 'classifier.py')
    init_default_scope('mmpretrain')
    model = MODELS.build(dict(cfg.model, data_preprocessor=dict(cfg.data_preprocessor))).eval()
    model.load_state_dict(torch.load(place / 'classifier.pth')['state_dict'])
    for path, prediction in zip(images(place), found):
        pixels = np.asarray(Image.open(path).crop((6, 2, 38, 34)), np.float32)  # short edge 36 already: the centre
        plain = torch.from_numpy((pixels - [120, 110, 100]) / [60, 50, 40]).permute(2, 0, 1)[None].float()
        with torch.no_grad():
            wanted = model.head.fc if hasattr(model.head, 'fc') else model.head.layers
            scores = wanted(model.backbone(plain)[-1]).softmax(-1)[0]
        order = scores.argsort(descending=True)[:2].tolist()
        assert prediction.labels == order and np.allclose(prediction.scores, scores[order], atol=1e-5)
        assert prediction.names == [('ant', 'bee', 'cat')[i] for i in order] and prediction.name == prediction.names[0]


def test_the_tool_writes_what_it_found(place, tmp_path):
    words = [sys.executable, ROOT / 'tools' / 'predict.py', place / 'images', '--model', place / 'classifier.pth']
    out = tmp_path / 'found.json'
    done = subprocess.run([*words, '--out', out], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = json.loads(out.read_text())
    found = mim_mm.api.predict(place / 'classifier.pth', images(place))
    assert [row['classes'] for row in rows] == [p.names for p in found]
    assert [row['image'] for row in rows] == [str(path) for path in images(place)]


def test_what_is_no_such_model_is_refused(place, tmp_path):
    with pytest.raises(LoadError, match='holds a ImageClassifier, no detector: use predict'):
        mim_mm.api.detect(place / 'classifier.pth', images(place))
    content = torch.load(place / 'classifier.pth')
    head = [name for name in content['state_dict'] if name.startswith('head.')]
    part = {name: value for name, value in content['state_dict'].items() if name not in head}
    torch.save(dict(content, state_dict=part), tmp_path / 'part.pth')
    with pytest.raises(LoadError, match='2 tensors of the model are not in it'):
        mim_mm.api.predict(tmp_path / 'part.pth', images(place))
    with pytest.raises(FileNotFoundError):
        mim_mm.api.predict(place / 'classifier.pth', place / 'absent.png')


def test_objects_are_those_of_mmdets_own_inference(place):
    from mmdet.apis import inference_detector

    cfg = Config.fromfile(ROOT / 'configs/demo/mask_rcnn.py')
    model = saved(cfg, place / 'detector.pth', tuple('abcdefghij'))
    model.cfg = cfg
    (found,) = mim_mm.api.detect(place / 'detector.pth', images(place)[0], above=0.0)
    wanted = inference_detector(model, str(images(place)[0])).pred_instances
    order = wanted.scores.argsort(descending=True, stable=True)
    wanted = wanted[order]
    assert len(found.scores) == len(wanted) > 0 and found.masks.shape == (len(wanted), 36, 44)
    assert np.allclose(found.scores, wanted.scores, atol=1e-5) and np.allclose(found.boxes, wanted.bboxes, atol=1e-2)
    assert found.names == ['abcdefghij'[i] for i in wanted.labels] and (np.diff(found.scores) <= 0).all()
    cut = float(found.scores[len(found.scores) // 2])
    (fewer,) = mim_mm.api.detect(place / 'detector.pth', images(place)[0], above=cut)
    assert len(fewer.scores) == (found.scores > cut).sum() < len(found.scores)
    with pytest.raises(LoadError, match='no classifier: use detect'):
        mim_mm.api.predict(place / 'detector.pth', images(place))
