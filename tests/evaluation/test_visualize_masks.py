"""The gallery tool: what it draws, what it says of its weights, the table on COCO annotations, and what it refuses."""

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from processes import in_process

from mim_mm.evaluation.pictures.mask_gallery import (
    MaskView,
    compare_foreground,
    foreground_table,
    gallery,
    parse_masker,
)
from mim_mm.masking import MaskPlan, salience
from mim_mm.registry import MODELS
from mim_mm.report import figures_masks
from mim_mm.report.figures_masks import GROUND, _mosaic, draw_gallery

ROOT = Path(__file__).resolve().parents[2]
CONFIG = """
default_scope = 'mim_mm'
model = dict(
    type='MAE',
    data_preprocessor=dict(type='ImgDataPreprocessor', mean=[110.0] * 3, std=[64.0] * 3),
    backbone=dict(
        type='mmpretrain.VisionTransformer',
        arch=dict(embed_dims=32, num_layers=2, num_heads=2, feedforward_channels=64),
        img_size=32, patch_size=8, out_type='raw'),
    masker=dict(type='RandomMasking'),
    decoder=dict(type='MAEDecoder', embed_dims=16, depth=1, num_heads=2),
)
"""
AMR = 'AMR=SalienceMasking:ratio.type=AdaptiveRatio,ratio.base=0.6,ratio.delta_r=0.3,ratio.threshold=0.2'


@pytest.fixture(scope='module')
def place(tmp_path_factory):
    """A config, a checkpoint of other weights, two images of which the second is wide, and COCO annotations."""
    folder = tmp_path_factory.mktemp('gallery')
    (folder / 'config.py').write_text(CONFIG)
    other = MaskView(folder / 'config.py', seed=7)
    torch.save(dict(state_dict=other.model.state_dict()), folder / 'trained.pth')
    rng = np.random.default_rng(0)
    for name, width in (('square', 48), ('wide', 80)):
        cv2.imwrite(str(folder / f'{name}.png'), rng.integers(0, 256, (48, width, 3), np.uint8))
    images = [dict(id=1, file_name='square.png', height=48, width=48)]
    boxes = [dict(id=1, image_id=1, category_id=1, iscrowd=0, bbox=[0, 0, 24, 24], area=576, segmentation=[])]
    content = dict(images=images, annotations=boxes, categories=[dict(id=1, name='x')])
    (folder / 'instances.json').write_text(json.dumps(content))
    return folder


@pytest.fixture
def files(place):
    return [place / 'square.png', place / 'wide.png']


@pytest.mark.parametrize(
    'spec, label, config',
    [
        ('RandomMasking', 'RandomMasking', dict(type='RandomMasking')),
        ('mine=RandomMasking:ratio=0.6', 'mine', dict(type='RandomMasking', ratio=0.6)),
        ('B:grid=(2,8),fill=none', 'B:grid=(2,8),fill=none', dict(type='B', grid=(2, 8), fill='none')),
        ('S:ratio.type=A,ratio.base=0.7,noise=0', 'S:ratio.type=A,ratio.base=0.7,noise=0',
         dict(type='S', ratio=dict(type='A', base=0.7), noise=0)),
    ],
)  # fmt: skip
def test_masker_words(spec, label, config):
    assert parse_masker(spec) == (label, config)


def test_a_word_without_value_is_refused():
    with pytest.raises(ValueError, match="'0.6' must be key=value"):
        parse_masker('RandomMasking:0.6')


def test_the_arrays_are_those_of_the_maskers(place, files):
    view = MaskView(place / 'config.py')
    content = gallery(view, files, ['RandomMasking:ratio=0.5', AMR, 'ParallelMasking'], seeds=2)
    tokens = view.tokens(view.read(files))
    assert content['labels'][1] == 'AMR' and 'random' in content['note']
    scores = salience(tokens)
    for i, row in enumerate(content['rows']):
        assert np.allclose(row['salience'].ravel(), scores[i]) and row['salience'].shape == (4, 4)
        assert row['above'] == pytest.approx((scores[i] > 0.5).float().mean().item())
        assert row['quantiles']['1'] == 1.0 and row['picture'].shape == (224, 224, 3)
        adaptive = 0.6 - 0.3 + 0.6 * (scores[i] > 0.2).double().mean().item()
        assert row['ratios'][1][0] == [pytest.approx(np.ceil(16 * adaptive - 1e-6) / 16)]
        assert row['ratios'][0] == [[0.5], [0.5]] and row['ratios'][2][0] == [0.75] * 4
        parts = row['masks'][2][0]
        assert parts.shape == (4, 4, 4) and ((parts == 0).sum(0) == 1).all(), 'parallel parts see each patch once'
    masker = MODELS.build(dict(type='RandomMasking', ratio=0.5))
    plan = masker(tokens, torch.Generator().manual_seed(1))
    assert np.array_equal(content['rows'][1]['masks'][0][1][0].ravel(), plan.mask[1, 0].numpy())
    # the wide image is cut to its centre square, not squeezed
    wide = cv2.cvtColor(cv2.imread(str(files[1])), cv2.COLOR_BGR2RGB)[:, 16:64]
    assert torch.equal(view.read(files[1:], 48, 48)[0], torch.from_numpy(wide.transpose(2, 0, 1).copy()))


def test_a_checkpoint_changes_salience_and_the_caption(place, files):
    views = [MaskView(place / 'config.py'), MaskView(place / 'config.py', place / 'trained.pth')]
    contents = [gallery(view, files, ['SalienceMasking'], seeds=1) for view in views]
    assert 'no checkpoint' in contents[0]['note'] and 'trained.pth' in contents[1]['note']
    assert not np.allclose(contents[0]['rows'][0]['salience'], contents[1]['rows'][0]['salience'])
    expected = salience(MaskView(place / 'config.py', seed=7).tokens(views[0].read(files)))
    assert np.allclose(contents[1]['rows'][0]['salience'].ravel(), expected[0])


def test_attention_maskers_get_that_of_the_class_token(place, files):
    # attention that rises with the patch number: "high" hides the last patches, AMT's thrown ones are neither
    view = MaskView(place / 'config.py')
    view.model.encoder.cls_attention = lambda tokens: torch.arange(16.0).expand(len(tokens), -1)
    high, amt = gallery(
        view, files, ['AttMask:ratio=0.5', 'AttentionMasking:mask_ratio=0.25,throw_ratio=0.5'], seeds=1
    )['rows'][0]['masks']
    assert high[0].ravel().tolist() == [0] * 8 + [1] * 8
    assert np.bincount(amt[0].ravel()).tolist() == [4, 4, 8]


def test_a_mask_covers_its_patches_of_the_picture():
    picture = np.linspace(0.0, 0.5, 28 * 28 * 3).reshape(28, 28, 3)
    mask = np.zeros((2, 2, 2), np.uint8)
    mask[0, 0, 1] = 1
    sheet = _mosaic(picture, mask)
    assert sheet.shape == (28, 57, 3), 'two parts side by side with a gap of one pixel'
    assert np.allclose(sheet[:14, 14:28], GROUND) and np.array_equal(sheet[14:, :28], picture[14:])
    assert np.array_equal(sheet[:, 29:], picture)


def test_parts_that_an_image_does_not_have_are_not_drawn(place, files, tmp_path, monkeypatch):
    content = gallery(MaskView(place / 'config.py'), files[:1], ['ParallelMasking'], seeds=1)
    row = content['rows'][0]
    row['ratios'][0][0][2:] = [float('nan')] * 2
    drawn = []
    monkeypatch.setattr(figures_masks, '_mosaic', lambda picture, parts: drawn.append(parts) or picture)
    draw_gallery(content, tmp_path / 'parts.png')
    assert len(drawn) == 1 and np.array_equal(drawn[0], row['masks'][0][0][:2])


def test_the_figure_shows_masks(place, files, tmp_path):
    view = MaskView(place / 'config.py')
    pictures = []
    for name, spec in (('few', 'RandomMasking:ratio=0.2'), ('many', 'RandomMasking:ratio=0.9')):
        content = gallery(view, files, [spec, 'ParallelMasking', AMR])
        pictures.append(cv2.imread(str(draw_gallery(content, tmp_path / f'{name}.png'))))
    assert min(pictures[0].shape[:2]) > 400 and pictures[0].std() > 20
    ground = np.array(GROUND[::-1]) * 255
    grey = [(np.abs(p - ground).max(-1) < 2).sum() for p in pictures]
    assert grey[1] > 1.2 * grey[0], 'the more is hidden, the more of the figure is grey'
    with pytest.raises(ValueError, match='no image'):
        draw_gallery(dict(content, rows=[]), tmp_path / 'none.png')
    with pytest.raises(ValueError, match='one of each at least'):
        gallery(view, files, [])


class Corner:
    """Hides the top left quarter of 4 x 4 patches."""

    def __call__(self, tokens, generator=None):
        mask = torch.zeros(4, 4)
        mask[:2, :2] = 1
        return MaskPlan.from_scores(mask.flatten().expand(len(tokens), 1, 16), 12)


def test_hidden_foreground_of_maskers(place, files):
    corner = np.zeros((4, 4), np.float32)
    corner[:2, :2] = 1
    items = [(files[0], dict(boxes=corner.ravel(), masks=None)), (files[1], dict(boxes=1 - corner.ravel(), masks=None))]
    view = MaskView(place / 'config.py')
    MODELS.register_module(name='CornerOfTheTest', module=Corner, force=True)
    try:
        rows = compare_foreground(view, items, ['CornerOfTheTest', 'RandomMasking:ratio=0.5'], seeds=20)
    finally:
        MODELS.module_dict.pop('CornerOfTheTest')
    # all of the first image's object and nothing of the second's; a quarter of all patches
    assert rows[0]['ratio'] == 0.25 and rows[0]['boxes'] == 0.5 and rows[0]['boxes_excess'] == 0.25
    assert rows[0]['boxes_error'] == pytest.approx(0.5), 'excess 0.75 and -0.25: deviation 1/sqrt(2), over sqrt(2)'
    assert abs(rows[1]['boxes_excess']) < 0.1 and np.isnan(rows[1]['masks'])
    table = foreground_table(rows, view.note)
    assert '| `CornerOfTheTest` | 25.0 | 50.0 | +25.0 ± 50.0 |' in table and 'no checkpoint' in table


def tool(place, *words):
    env = dict(os.environ, PYTHONPATH=str(ROOT), OMP_NUM_THREADS='1')
    command = [sys.executable, str(ROOT / 'tools' / 'visualize_masks.py'), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, env=env, cwd=place)


def test_the_tool_draws_and_measures(place, files):
    out = place / 'masks.png'
    drawn = tool(place, *files, '--config', 'config.py', '--checkpoint', 'trained.pth', '--masker', 'AttMask', AMR,
                 '--seeds', 2, '--out', out)  # fmt: skip
    # The last line: importing mmdet prints lines of its own before.
    assert drawn.returncode == 0 and drawn.stdout.splitlines()[-1] == str(out), drawn.stderr
    assert cv2.imread(str(out)).std() > 20
    again = partial(in_process, 'visualize_masks.py', cwd=place)
    measured = again('--coco', 'instances.json', '--images', place, '--config', 'config.py', '--seeds', 2)
    assert measured.returncode == 0 and '| `RandomMasking` | 75.0 |' in measured.stdout, measured.stderr
    refused = again(*files, '--config', 'config.py', '--masker', 'RandomMaskin', '--out', out)
    assert refused.returncode == 1 and 'RandomMaskin is not in' in refused.stderr
    assert again('--coco', 'instances.json').returncode == 2
