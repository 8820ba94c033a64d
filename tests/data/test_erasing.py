"""Random erasing: boxes as timm draws them, noise that is standard normal behind the normalisation."""

import random

import numpy as np
import pytest
import torch
from built_recipes import load
from mmengine.dataset import Compose, pseudo_collate
from mmpretrain.models.utils.data_preprocessor import ClsDataPreprocessor

from mim_mm.data.batches import LabelledPreprocessor, collate_labelled, erased
from mim_mm.data.erasing import RandomErasingBox
from mim_mm.engine.start.checks.relations import check_relations
from mim_mm.engine.start.checks.words import ConfigError

HALF = dict(mean=[127.5] * 3, std=[127.5] * 3, to_rgb=True)


def boxes_of(count, rows, columns, **options):
    np.random.seed(0)
    step = RandomErasingBox(**options)
    image = np.broadcast_to(np.uint8(0), (rows, columns, 3))
    return np.array([step(dict(img=image))['erase_box'] for _ in range(count)])


def timms_boxes(count, rows, columns):
    """Where timm's random erasing has written into images of zeros."""
    module = pytest.importorskip('timm.data.random_erasing')
    erasing = module.RandomErasing(1.0, max_area=1 / 3, mode='pixel', device='cpu')
    random.seed(0), torch.manual_seed(0)
    found = []
    for _ in range(count):
        written = erasing(torch.zeros(1, rows, columns))[0] != 0
        down, across = written.any(1).nonzero().flatten(), written.any(0).nonzero().flatten()
        found.append((down[0], across[0], len(down), len(across)) if len(down) else (0, 0, 0, 0))
    return np.array(found)


@pytest.mark.parametrize('size', [(64, 64), (40, 70)])
def test_boxes_are_drawn_as_by_timm(size):
    ours, theirs = boxes_of(2000, *size, erase_prob=1.0), timms_boxes(2000, *size)
    assert (ours[:, 2] < size[0]).all() and (ours[:, 3] < size[1]).all()
    assert (ours[:, 0] + ours[:, 2] <= size[0]).all() and (ours[:, 1] + ours[:, 3] <= size[1]).all()
    for of in (
        lambda b: b[:, 2] * b[:, 3],
        lambda b: np.log((b[:, 2] + 1) / (b[:, 3] + 1)),
        lambda b: b[:, 0],
        lambda b: b[:, 1],
    ):
        mine, other = of(ours).astype(float), of(theirs).astype(float)
        error = np.sqrt((mine.var() + other.var()) / 2000)
        assert abs(mine.mean() - other.mean()) < 4 * error
        assert mine.std() == pytest.approx(other.std(), rel=0.1)


def test_a_quarter_of_the_images_is_erased():
    assert abs((boxes_of(4000, 32, 32)[:, 2] > 0).mean() - 0.25) < 4 * (0.25 * 0.75 / 4000) ** 0.5
    assert not boxes_of(50, 32, 32, erase_prob=0.0).any()


@pytest.mark.parametrize('options, words', [
    (dict(erase_prob=1.5), 'erase_prob=1.5'), (dict(min_area_ratio=0.5, max_area_ratio=0.2), 'least <= most'),
    (dict(aspect_range=(3, 0.3)), 'must rise'),
])  # fmt: skip
def test_what_cannot_be_drawn_is_refused(options, words):
    with pytest.raises(ValueError, match=words):
        RandomErasingBox(**options)


def test_noise_is_standard_normal_in_the_box_and_nowhere_else():
    torch.manual_seed(0)
    images = torch.full((3, 3, 90, 80), 7.0)
    out = erased(images, torch.tensor([[10, 20, 60, 50], [0, 0, 0, 0], [30, 0, 60, 80]]))
    assert (images == 7).all() and torch.equal(out[1], images[1])
    for image, rows, columns in ((out[0], slice(10, 70), slice(20, 70)), (out[2], slice(30, 90), slice(0, 80))):
        inside = image[:, rows, columns]
        assert abs(inside.mean()) < 0.05 and inside.std() == pytest.approx(1, abs=0.03) and inside.abs().max() > 3
        rest = image.clone()
        rest[:, rows, columns] = 7
        assert (rest == 7).all()
    assert erased(images, torch.zeros(3, 4, dtype=torch.long)) is images


def test_from_the_pipeline_through_the_preprocessor():
    """Eight images, some with a box: outside of it what mmpretrain makes of the image, inside noise that is not cut."""
    steps = Compose([
        dict(type='mim_mm.RandomErasingBox', erase_prob=0.7),
        dict(type='mmpretrain.PackInputs', meta_keys=('img_path', 'erase_box')),
    ])  # fmt: skip
    draw = np.random.default_rng(0)
    np.random.seed(3), torch.manual_seed(3)
    samples = [
        steps(dict(img=draw.integers(0, 256, (48, 48, 3), dtype=np.uint8), gt_label=index % 5, img_path=f'{index}'))
        for index in range(8)
    ]
    batch = collate_labelled(samples)
    assert batch['boxes'].shape == (8, 4) and 2 <= (batch['boxes'][:, 2] > 0).sum() < 8
    found = LabelledPreprocessor(**HALF, num_classes=5)(batch, training=True)
    plain = ClsDataPreprocessor(**HALF)(pseudo_collate(samples))['inputs']
    noise = []
    for image, was, (top, left, height, width) in zip(found['inputs'], plain, batch['boxes'].tolist()):
        box = torch.zeros(48, 48, dtype=torch.bool)
        box[top : top + height, left : left + width] = True
        assert torch.equal(image[:, ~box], was[:, ~box])
        noise.append(image[:, box].flatten())
    noise = torch.cat(noise)
    assert noise.std() == pytest.approx(1, abs=0.05) and noise.abs().max() > 2
    assert [int(sample.gt_label) for sample in found['data_samples']] == [i % 5 for i in range(8)]
    with pytest.raises(ValueError, match='collate_labelled'):
        LabelledPreprocessor(**HALF, num_classes=5)(pseudo_collate(samples), training=True)


@pytest.mark.parametrize('change, words', [
    ({}, None),
    ({'data_preprocessor.type': 'ClsDataPreprocessor'}, 'LabelledPreprocessor'),
    ({'train_dataloader.collate_fn.type': 'default_collate'}, 'collate_labelled'),
    ({'train_dataloader.dataset.pipeline.5.meta_keys': ('img_path',)}, 'leaves behind'),
])  # fmt: skip
def test_a_box_that_nobody_fills_is_refused_before_training(change, words):
    cfg = load('finetune/vitb_finetune_100e.py')
    cfg.merge_from_dict(change)
    if words is None:
        assert check_relations(cfg) is None
    else:
        with pytest.raises(ConfigError, match=words):
            check_relations(cfg)
