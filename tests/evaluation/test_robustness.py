"""Other versions of a test set: numbering of folders, classes that are predicted among, figures."""

import json
import runpy
import sys

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import Compose
from PIL import Image

from mim_mm.evaluation.robustness import figures, sets
from mim_mm.evaluation.robustness.measure import measure
from mim_mm.folders import DataError

CLASSES = ('n01', 'n02', 'n03', 'n04', 'n05')
TEXT = """
default_scope = 'mmpretrain'
model = dict(
    type='ImageClassifier',
    backbone=dict(type='VisionTransformer', img_size=32, patch_size=16, out_type='avg_featmap', final_norm=False,
                  arch=dict(embed_dims=16, num_layers=1, num_heads=2, feedforward_channels=32)),
    head=dict(type='LinearClsHead', num_classes=5, in_channels=16))
data_preprocessor = dict(mean=[120.0, 110.0, 100.0], std=[60.0, 58.0, 57.0], to_rgb=True)
pipeline = [dict(type='LoadImageFromFile'), dict(type='ResizeEdge', scale=36, backend='pillow'),
            dict(type='CenterCrop', crop_size=32), dict(type='PackInputs')]
train_dataloader = dict(dataset=dict(type='mim_mm.ClassFolders', data_root=r'{root}', data_prefix='train'))
test_dataloader = dict(dataset=dict(type='mim_mm.ClassFolders', data_root=r'{root}', pipeline=pipeline))
"""


def fill(folder, names, count=3, file='{}.png', seed=0):
    rng = np.random.default_rng(seed)
    for label, name in enumerate(names):
        (folder / name).mkdir(parents=True)
        for i in range(count):
            pixels = rng.integers(0, 256, (40, 44, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / file.format(label * count + i + 1))


@pytest.fixture
def place(tmp_path):
    """A config, a checkpoint of it, and sets of five classes, of which 'a' has two."""
    from mim_mm.registry import MODELS

    fill(tmp_path / 'train', CLASSES, 1)
    fill(tmp_path / 'val', CLASSES, file='ILSVRC2012_val_{:08}.png', seed=1)
    fill(tmp_path / 'v2', '10432', seed=2)
    fill(tmp_path / 'a', ('n02', 'n05'), seed=3)
    (tmp_path / 'config.py').write_text(TEXT.replace('{root}', str(tmp_path)))
    cfg = Config.fromfile(tmp_path / 'config.py')
    torch.manual_seed(0)
    model = MODELS.build(dict(cfg.model, _scope_='mmpretrain'))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    torch.save(dict(state_dict=model.state_dict()), tmp_path / 'model.pth')
    return tmp_path


def scores_of(place, path):
    """mmpretrain's own prediction for one file."""
    cfg = Config.fromfile(place / 'config.py')
    model = sets.build_classifier(cfg, str(place / 'model.pth'))
    item = Compose(cfg.pipeline)(dict(img_path=str(path)))
    batch = model.data_preprocessor(dict(inputs=[item['inputs']], data_samples=[item['data_samples']]), False)
    return model(**batch, mode='predict')[0].pred_score.detach().numpy()


@pytest.mark.parametrize('name, numbers', [('val', range(5)), ('v2', (0, 1, 2, 3, 4)), ('a', (1, 4))])
def test_predictions_are_mmpretrains(place, name, numbers):
    """Folders are numbered by the training set's, those of v2 by their names; 'a' predicts among its own two."""
    cfg = Config.fromfile(place / 'config.py')
    model = sets.build_classifier(cfg, str(place / 'model.pth'))
    names = sets.training_classes(cfg)
    assert names == list(CLASSES)
    folder = place / name
    found = sets.predict(model, cfg.pipeline, str(folder), names, name, dict(batch_size=4, workers=0))
    assert len(found.files) == 3 * len(list(folder.iterdir()))
    for file, truth, predicted, confidence in zip(found.files, found.truth, found.predicted, found.confidence):
        of = file.split('/')[0]
        assert truth == (int(of) if name == 'v2' else CLASSES.index(of))
        scores = scores_of(place, folder / file)[list(numbers)]
        assert predicted == numbers[int(scores.argmax())]
        assert confidence == pytest.approx(scores.max() / scores.sum(), rel=1e-4)
    row = found.figures()
    assert row['top1'] == pytest.approx(100 * np.mean(found.truth == found.predicted))


def test_the_whole_call(place, monkeypatch, capsys):
    for corruption in figures.ALEXNET:
        for severity in figures.SEVERITIES:
            fill(place / 'c' / corruption / str(severity), ('n01', 'n03'), 1, seed=severity)
    real = [[] if i % 2 else list(range(5)) for i in range(15)]
    (place / 'real.json').write_text(json.dumps(real))
    words = ['--sets', f'val={place / "val"}', f'a={place / "a"}', f'c={place / "c"}', '--workers', '0']
    words = [str(place / 'config.py'), str(place / 'model.pth'), *words, '--real', str(place / 'real.json')]
    monkeypatch.setattr(sys, 'argv', ['tools/robustness.py', *words])
    runpy.run_path('tools/robustness.py', run_name='__main__')
    found = json.loads((place / 'robustness.json').read_text())
    assert found['real'] == dict(top1=100.0, images=8), 'every class is right where anything is labelled'
    errors = {name: [1 - value / 100 for value in row.values()] for name, row in found['corruptions'].items()}
    wanted = np.mean([100 * np.mean(errors[name]) / alexnet for name, alexnet in figures.ALEXNET.items()])
    assert found['mce'] == pytest.approx(wanted)
    assert found['sets']['a']['images'] == 6 and 'C, mCE' in capsys.readouterr().out
    (place / 'c' / 'snow' / '3').rename(place / 'c' / 'snow' / '9')
    said = []
    part = measure(str(place / 'config.py'), str(place / 'model.pth'), [f'c={place / "c"}'], say=said.append)
    assert 'mce' not in part and part['corruptions']['snow'] and 'no mCE' in said[-1] and 'snow/3' in said[-1]


def test_corruption_error_of_resnet_50():
    """Top-1 and CE as printed for torchvision's ResNet-50: 29.29 and 79.77 for Gaussian noise, and so on."""
    printed = dict(gaussian_noise=(29.29, 79.77), glass_blur=(26.79, 88.61), impulse_noise=(23.81, 82.58),
                   contrast=(39.06, 71.43), fog=(45.83, 66.11))  # fmt: skip
    top1 = {name: dict.fromkeys(figures.SEVERITIES, printed.get(name, (50.0,))[0]) for name in figures.ALEXNET}
    mean, parts = figures.mean_corruption_error(top1)
    for name, (_, error) in printed.items():
        assert parts[name] == pytest.approx(error, abs=0.01), name
    assert mean == pytest.approx(np.mean(list(parts.values())))
    alexnet = {name: dict.fromkeys(figures.SEVERITIES, 100 * (1 - error)) for name, error in figures.ALEXNET.items()}
    assert figures.mean_corruption_error(alexnet)[0] == pytest.approx(100)
    del top1['fog'][2]
    with pytest.raises(DataError, match='fog/2 is missing'):
        figures.mean_corruption_error(top1)


def test_calibration_error_by_hand():
    """Four images in two of two bins: |0.5 - 0.4| and |1 - 0.7|, half of them each."""
    confidence, correct = np.array([0.3, 0.5, 0.6, 0.8]), np.array([True, False, True, True])
    assert figures.calibration_error(confidence, correct, 2) == pytest.approx(100 * (0.5 * 0.1 + 0.5 * 0.3))
    rng = np.random.default_rng(0)
    sure = rng.random(200_000)
    assert figures.calibration_error(sure, rng.random(200_000) < sure) < 1, 'right as often as it says'
    assert figures.calibration_error(np.ones(4), np.zeros(4)) == pytest.approx(100)


def test_real_goes_by_the_number_in_the_name():
    names = [f'n01/ILSVRC2012_val_{number:08}.JPEG' for number in (3, 1, 2)]
    assert figures.real_accuracy(names, np.array([7, 5, 1]), [[5, 6], [], [8]]) == (50.0, 2)
    with pytest.raises(DataError, match='no number'):
        figures.real_accuracy(['n01/1.png'], np.array([0]), [[0]])
    with pytest.raises(DataError, match='00000003'):
        figures.real_accuracy(names, np.array([7, 5, 1]), [[5], [1]])


def test_what_is_refused(place):
    config, checkpoint = str(place / 'config.py'), str(place / 'model.pth')
    with pytest.raises(DataError, match='must be NAME=DIR'):
        measure(config, checkpoint, ['b=x'])
    with pytest.raises(DataError, match='add val=DIR'):
        measure(config, checkpoint, [f'a={place / "a"}'], real='real.json')
    fill(place / 'r', ('n02', 'n99'))
    with pytest.raises(DataError, match='n99'):
        measure(config, checkpoint, [f'r={place / "r"}'])
    (place / 'train' / 'n06').mkdir()
    with pytest.raises(DataError, match='6 class folders, the head of the config 5'):
        measure(config, checkpoint, [f'a={place / "a"}'])
