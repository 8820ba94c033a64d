"""One training step and one prediction of mmdet's own detector configs, in fp32 and under bf16 autocast."""

import contextlib

import numpy as np
import pytest
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmdet.utils import register_all_modules
from mmengine.hub import get_config
from mmengine.registry import DefaultScope
from mmengine.structures import InstanceData

pytestmark = pytest.mark.slow

SIDE, CLASSES = 96, 3
CONFIGS = {
    'mask_rcnn': 'mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py',
    'retinanet': 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py',
    'cascade': 'mmdet::cascade_rcnn/cascade-mask-rcnn_r50_fpn_1x_coco.py',
}


def build(name):
    register_all_modules(init_default_scope=False)
    model = get_config(CONFIGS[name]).model
    # No download; and no residual branch that starts at zero, whose convolutions would have no gradient in step one.
    model.backbone.update(init_cfg=None, zero_init_residual=False)
    heads = [model.bbox_head] if 'bbox_head' in model else model.roi_head.bbox_head
    for head in heads if isinstance(heads, list) else [heads]:
        head.num_classes = CLASSES
    if 'roi_head' in model:
        model.roi_head.mask_head.num_classes = CLASSES
        model.train_cfg.rpn.allowed_border = -1  # else no anchor of the coarse levels lies within so small an image
        model.train_cfg.rpn_proposal.update(nms_pre=100, max_per_img=50)
        model.test_cfg.rpn.update(nms_pre=100, max_per_img=30)
    tests = model.test_cfg.rcnn if 'rcnn' in model.test_cfg else model.test_cfg
    tests.update(score_thr=0.0, max_per_img=20)
    with DefaultScope.overwrite_default_scope('mmdet'):
        detector = MODELS.build(model)
    detector.init_weights()
    return detector


def batch():
    samples = []
    for boxes in ([[8, 10, 60, 70], [50, 40, 90, 90]], [[20, 5, 45, 80]]):
        masks = np.zeros((len(boxes), SIDE, SIDE), np.uint8)
        for mask, (x1, y1, x2, y2) in zip(masks, boxes):
            mask[y1:y2, x1:x2] = 1
        labels = torch.arange(len(boxes)) % CLASSES
        instances = InstanceData(
            bboxes=torch.tensor(boxes).float(), labels=labels, masks=BitmapMasks(masks, SIDE, SIDE)
        )
        shape = dict(
            img_shape=(SIDE, SIDE), ori_shape=(SIDE, SIDE), scale_factor=(1.0, 1.0), batch_input_shape=(SIDE,) * 2
        )
        samples.append(DetDataSample(metainfo=shape, gt_instances=instances))
    images = [torch.randint(256, (3, SIDE, SIDE), dtype=torch.uint8) for _ in samples]
    return dict(inputs=images, data_samples=samples)


def autocast(precision):
    return torch.autocast('cpu', torch.bfloat16) if precision == 'bf16' else contextlib.nullcontext()


def train_step(model, precision):
    data = model.data_preprocessor(batch(), training=True)
    with autocast(precision):
        losses = model(**data, mode='loss')
    total, log = model.parse_losses(losses)
    total.backward()
    return log


def predictions(model, precision):
    model.eval()
    data = model.data_preprocessor(batch(), training=False)
    with torch.no_grad(), autocast(precision):
        return model(**data, mode='predict')


@pytest.mark.parametrize('precision', ['fp32', 'bf16'])
@pytest.mark.parametrize('name', CONFIGS)
def test_train_and_predict(name, precision):
    model = build(name)
    log = train_step(model, precision)
    assert {'loss_cls', 'loss_bbox'} <= set(log) or 's0.loss_cls' in log
    assert ('loss_mask' in log or 's0.loss_mask' in log) == (name != 'retinanet')
    assert all(torch.isfinite(value) for value in log.values()) and log['loss'] > 0

    trained = {key: p for key, p in model.named_parameters() if p.requires_grad}
    dead = [key for key, p in trained.items() if p.grad is None or not p.grad.isfinite().all() or not p.grad.any()]
    assert not dead, dead

    before = {key: p.detach().clone() for key, p in trained.items()}
    torch.optim.SGD(model.parameters(), lr=1e-4).step()
    assert any((p != before[key]).any() for key, p in trained.items())

    results = predictions(model, precision)
    assert len(results) == 2
    for sample in results:
        found = sample.pred_instances
        assert 0 < len(found) <= 20
        assert found.bboxes.shape == (len(found), 4) and found.scores.shape == found.labels.shape == (len(found),)
        assert found.bboxes.isfinite().all() and found.bboxes.min() >= 0 and found.bboxes.max() <= SIDE
        assert found.labels.min() >= 0 and found.labels.max() < CLASSES
        assert (found.scores[:-1] >= found.scores[1:]).all()
        if name != 'retinanet':
            assert found.masks.shape == (len(found), SIDE, SIDE) and found.masks.dtype == torch.bool


def test_predicted_boxes_of_a_class_obey_the_nms_threshold():
    from restatements import iou

    model = build('mask_rcnn')
    for sample in predictions(model, 'fp32'):
        found = sample.pred_instances
        for label in range(CLASSES):
            boxes = found.bboxes[found.labels == label].tolist()
            assert all(iou(a, b) <= 0.5 + 1e-5 for i, a in enumerate(boxes) for b in boxes[:i])
