"""mmdet's parts without waits for the device, against mmdet's own: the same to the bit."""

import pytest
import torch
from mmdet.models.data_preprocessors import DetDataPreprocessor
from mmdet.models.task_modules import AnchorGenerator, MaxIoUAssigner
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData

from mim_mm.detection.without_waits import (
    WaitlessAnchorGenerator,
    WaitlessDetDataPreprocessor,
    WaitlessMaxIoUAssigner,
)

RPN = dict(pos_iou_thr=0.7, neg_iou_thr=0.3, min_pos_iou=0.3, match_low_quality=True, ignore_iof_thr=-1)
RCNN = dict(pos_iou_thr=0.5, neg_iou_thr=0.5, min_pos_iou=0.5, match_low_quality=False, ignore_iof_thr=-1)
BANDS = dict(pos_iou_thr=0.6, neg_iou_thr=(0.1, 0.4), min_pos_iou=0.2, gt_max_assign_all=False)


def boxes(count, seed, side=64, steps=8):
    """On a coarse grid, so that overlaps are often equal."""
    generator = torch.Generator().manual_seed(seed)
    corner = torch.randint(0, side // steps - 1, (count, 2), generator=generator) * steps
    size = torch.randint(1, 4, (count, 2), generator=generator) * steps
    return torch.cat([corner, corner + size], dim=1).float()


@pytest.mark.parametrize('options', [RPN, RCNN, BANDS], ids=['rpn', 'rcnn', 'bands'])
@pytest.mark.parametrize('objects', [0, 1, 12])
def test_boxes_are_given_as_mmdet_gives_them(options, objects):
    contested = 0
    for seed in range(5):
        priors = InstanceData(priors=boxes(200, seed))
        truth = InstanceData(bboxes=boxes(objects, seed + 99), labels=torch.arange(objects) % 3)
        ours, theirs = (kind(**options).assign(priors, truth) for kind in (WaitlessMaxIoUAssigner, MaxIoUAssigner))
        assert ours.num_gts == theirs.num_gts
        for name in ('gt_inds', 'max_overlaps', 'labels'):
            mine, other = getattr(ours, name), getattr(theirs, name)
            assert mine.dtype == other.dtype and torch.equal(mine, other), name
        best = MaxIoUAssigner(**dict(options, match_low_quality=False)).assign(priors, truth)
        contested += not torch.equal(best.gt_inds, theirs.gt_inds)
    assert contested or objects == 0 or options is RCNN, 'no box was taken for an object without one'


def test_anchors_are_those_of_mmdet():
    options = dict(scales=[8], ratios=[0.5, 1.0, 2.0], strides=[4, 8])
    ours, theirs = WaitlessAnchorGenerator(**options), AnchorGenerator(**options)
    for _ in range(2):
        found = (kind.grid_priors([(6, 5), (3, 3)], device='cpu') for kind in (ours, theirs))
        assert all(torch.equal(mine, other) for mine, other in zip(*found, strict=True))


@pytest.mark.parametrize('bgr_to_rgb', [True, False])
def test_images_are_those_of_mmdet(bgr_to_rgb):
    options = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=bgr_to_rgb)
    options.update(pad_size_divisor=32)
    images = [torch.randint(0, 256, (3, *size), dtype=torch.uint8) for size in ((40, 50), (33, 64))]
    found = [
        kind(**options)(
            dict(
                inputs=[image.clone() for image in images],
                data_samples=[DetDataSample(metainfo=dict(img_shape=image.shape[1:])) for image in images],
            ),
            training=True,
        )
        for kind in (WaitlessDetDataPreprocessor, DetDataPreprocessor)
    ]
    assert torch.equal(*(one['inputs'] for one in found))
    assert [s.metainfo for s in found[0]['data_samples']] == [s.metainfo for s in found[1]['data_samples']]
