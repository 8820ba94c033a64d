"""Batches that reach the device in two copies: the numbers of mmpretrain's own way, image by image, to the bit."""

import numpy as np
import pytest
import torch
from mmengine.dataset import pseudo_collate
from mmpretrain.models.utils.data_preprocessor import ClsDataPreprocessor, TwoNormDataPreprocessor
from mmpretrain.structures import DataSample

from mim_mm.data.batches import LabelledPreprocessor, TwoNormPreprocessor, collate_labelled

NORM = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True)
MIXED = dict(augments=[dict(type='Mixup', alpha=0.8), dict(type='CutMix', alpha=1.0)])


def samples(count=6, sizes=(32,)):
    draw = np.random.default_rng(0)
    return [
        dict(
            inputs=torch.from_numpy(draw.integers(0, 256, (3, size, size), dtype=np.uint8)),
            data_samples=DataSample(metainfo=dict(img_path=f'{i}.jpg', num_classes=5)).set_gt_label(i % 5),
        )
        for i, size in zip(range(count), sizes * count)
    ]


def through(preprocessor, batch, seed=0):
    np.random.seed(seed)
    torch.manual_seed(seed)
    return preprocessor(batch, training=True)


@pytest.mark.parametrize('options', [{}, dict(num_classes=5, to_onehot=True)], ids=['labels', 'one-hot'])
def test_images_and_labels_are_those_of_mmpretrain(options):
    batch = collate_labelled(samples())
    assert batch['inputs'].shape == (6, 3, 32, 32) and batch['labels'].tolist() == [0, 1, 2, 3, 4, 0]
    ours = through(LabelledPreprocessor(**NORM, **options), batch)
    theirs = through(ClsDataPreprocessor(**NORM, **options), pseudo_collate(samples()))
    assert torch.equal(ours['inputs'], theirs['inputs'])
    for mine, other in zip(ours['data_samples'], theirs['data_samples'], strict=True):
        assert torch.equal(mine.gt_label, other.gt_label)
        assert mine.get('gt_score') is None if not options else torch.equal(mine.gt_score, other.gt_score)


def test_mixed_images_are_those_of_mmpretrain():
    kinds = set()
    for seed in range(8):  # of both kinds
        ours = through(
            LabelledPreprocessor(**NORM, num_classes=5, batch_augments=dict(MIXED)), collate_labelled(samples()), seed
        )
        theirs = through(
            ClsDataPreprocessor(**NORM, num_classes=5, batch_augments=dict(MIXED)), pseudo_collate(samples()), seed
        )
        plain = through(ClsDataPreprocessor(**NORM), pseudo_collate(samples()), seed)
        assert torch.equal(ours['inputs'], theirs['inputs']) and not torch.equal(ours['inputs'], plain['inputs'])
        for mine, other in zip(ours['data_samples'], theirs['data_samples'], strict=True):
            assert torch.equal(mine.gt_score, other.gt_score)
        kept = (ours['inputs'] == plain['inputs']).flatten(1).float().mean(dim=1)
        kinds.add('cut' if ((kept > 0.02) & (kept < 0.98)).any() else 'mixed')
    assert kinds == {'cut', 'mixed'}


def test_what_is_no_plain_batch_goes_the_old_way():
    several = samples()
    several[1]['data_samples'].set_gt_label([1, 2])
    scored = samples()
    for sample in scored:
        sample['data_samples'].set_gt_score(torch.ones(5))
    for batch in (several, scored, samples(sizes=(32, 48))):
        assert collate_labelled(batch)['inputs'] == pseudo_collate(batch)['inputs']
    theirs = ClsDataPreprocessor(**NORM)(pseudo_collate(samples(sizes=(32, 48))))
    ours = LabelledPreprocessor(**NORM)(collate_labelled(samples(sizes=(32, 48))))
    assert torch.equal(ours['inputs'], theirs['inputs'])
    assert [s.img_path for s in ours['data_samples']] == [f'{i}.jpg' for i in range(6)]


def test_mixed_labels_need_the_number_of_classes():
    with pytest.raises(ValueError, match='data_preprocessor.num_classes is None'):
        LabelledPreprocessor(**NORM, batch_augments=dict(MIXED))(collate_labelled(samples()), training=True)


@pytest.mark.parametrize('to_rgb', [True, False])
def test_two_views_are_those_of_mmpretrain(to_rgb):
    options = dict(NORM, to_rgb=to_rgb, second_mean=[-31.875] * 3, second_std=[318.75] * 3)
    views = [torch.randint(0, 256, (2, 3, size, size), dtype=torch.uint8) for size in (32, 16)]
    ours, theirs = (
        kind(**options)(dict(inputs=[view.clone() for view in views], data_samples=None))['inputs']
        for kind in (TwoNormPreprocessor, TwoNormDataPreprocessor)
    )
    assert all(torch.equal(mine, other) for mine, other in zip(ours, theirs, strict=True))
