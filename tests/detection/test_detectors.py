"""Mask R-CNN and Cascade R-CNN on a tiny windowed ViT: training step, prediction, padding, coordinates, bf16."""

import copy
from pathlib import Path

import mmdet
import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData

from mim_mm.registry import MODELS

SIZE = 64
MMDET_MODELS = Path(mmdet.__file__).parent / '.mim' / 'configs' / '_base_' / 'models'


def config(base='mask-rcnn_r50_fpn.py', neck='DeconvPyramid'):
    """mmdet's own model config with our backbone and neck, shrunk."""
    cfg = Config.fromfile(MMDET_MODELS / base).model
    fpn = dict(type='FPN', out_channels=16, num_outs=5)
    arch = dict(embed_dims=32, num_layers=2, num_heads=2, feedforward_channels=64, global_attn_indexes=(1,))
    cfg.type = 'mim_mm.MIMMaskRCNN' if cfg.type == 'MaskRCNN' else 'mim_mm.MIMCascadeRCNN'
    cfg.data_preprocessor.pad_size_divisor = SIZE
    cfg.backbone = dict(type='mim_mm.WindowedViT', arch=arch, img_size=SIZE, pretrain_img_size=32, window_size=3)
    options = dict(fpn=fpn) if neck == 'DeconvPyramid' else dict(out_channels=16)
    cfg.neck = dict(type=f'mim_mm.{neck}', in_channels=32, **options)
    cfg.rpn_head.update(in_channels=16, feat_channels=16)
    heads = cfg.roi_head.bbox_head if isinstance(cfg.roi_head.bbox_head, list) else [cfg.roi_head.bbox_head]
    for head in heads:
        head.update(in_channels=16, fc_out_channels=32, num_classes=3)
    cfg.roi_head.mask_head.update(in_channels=16, conv_out_channels=16, num_classes=3, num_convs=1)
    cfg.roi_head.bbox_roi_extractor.out_channels = cfg.roi_head.mask_roi_extractor.out_channels = 16
    return cfg


def build(cfg):
    init_default_scope('mmdet')
    return MODELS.build(cfg)


def sample(height=SIZE, width=SIZE, scale=1.0):
    data = DetDataSample()
    data.set_metainfo(
        dict(
            img_id=1,
            img_shape=(height, width),
            ori_shape=(int(height / scale), int(width / scale)),
            scale_factor=(scale, scale),
        )
    )
    boxes = torch.tensor([[4.0, 4.0, 24.0, 20.0], [20.0, 10.0, 36.0, 30.0]])
    masks = np.zeros((2, height, width), np.uint8)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes.int().tolist()):
        mask[y1:y2, x1:x2] = 1
    data.gt_instances = InstanceData(bboxes=boxes, labels=torch.tensor([0, 2]), masks=BitmapMasks(masks, height, width))
    return data


def batch(*samples):
    images = [torch.randint(0, 255, (3, *s.img_shape), dtype=torch.uint8) for s in samples]
    return dict(inputs=images, data_samples=list(samples))


@pytest.mark.parametrize('base', ['mask-rcnn_r50_fpn.py', 'cascade-mask-rcnn_r50_fpn.py'])
@pytest.mark.parametrize('neck', ['DeconvPyramid', 'SimplePyramid'])
def test_every_parameter_learns_and_the_loss_falls(base, neck):
    model = build(config(base, neck)).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    data = model.data_preprocessor(batch(sample(), sample(40, 56)), True)
    assert data['inputs'].shape == (2, 3, SIZE, SIZE)
    losses = []
    for _ in range(10):
        terms = model(**data, mode='loss')
        total = sum(sum(v) if isinstance(v, list) else v for k, v in terms.items() if 'loss' in k)
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        losses.append(total.item())
    assert losses[-1] < 0.8 * losses[0], losses
    without = [n for n, p in model.named_parameters() if p.grad is None]
    assert not without, without
    assert model.get_layer_depth('backbone.layers.1.ln1.weight') == (2, 4)
    assert model.get_layer_depth('roi_head.bbox_head.fc_cls.weight') == (3, 4)


def test_padding_at_test_time_and_boxes_in_original_coordinates():
    cfg = config()
    cfg.test_cfg.rcnn.score_thr = 0.0
    model = build(cfg)
    model.eval()
    data = sample(38, 60, scale=2.0)
    seen = []
    model.backbone.register_forward_pre_hook(lambda module, args: seen.append(tuple(args[0].shape)))
    inputs = model.data_preprocessor(batch(data), False)
    with torch.no_grad():
        scaled = model.predict(inputs['inputs'], copy.deepcopy(inputs['data_samples']), rescale=False)[0].pred_instances
        original = model.predict(inputs['inputs'], inputs['data_samples'], rescale=True)[0].pred_instances
    assert seen == [(1, 3, SIZE, SIZE)] * 2
    assert len(original) > 0
    torch.testing.assert_close(original.bboxes, scaled.bboxes / 2)
    assert (original.bboxes[:, 2] <= 30).all() and (original.bboxes[:, 3] <= 19).all()
    assert original.masks.shape[1:] == (19, 30)


def test_features_do_not_depend_on_the_padding_of_another_image_size():
    """A lone 38 x 60 image gives the features of the same pixels on a hand-made 64 x 64 canvas of zeros."""
    model = build(config())
    model.eval()
    images = batch(sample(38, 60))
    got = model.data_preprocessor(images, False)['inputs']
    mean, std = model.data_preprocessor.mean, model.data_preprocessor.std
    canvas = torch.zeros(1, 3, SIZE, SIZE)
    canvas[0, :, :38, :60] = (images['inputs'][0].flip(0).float() - mean) / std
    torch.testing.assert_close(got, canvas)


def test_bfloat16_training_step():
    model = build(config()).train()
    data = model.data_preprocessor(batch(sample()), True)
    with torch.autocast('cpu', torch.bfloat16):
        terms = model(**data, mode='loss')
    total = sum(sum(v) if isinstance(v, list) else v for k, v in terms.items() if 'loss' in k)
    total.backward()
    assert torch.isfinite(total) and all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_layer_depth_needs_a_backbone_that_knows_it():
    model = build(config())
    model.backbone = torch.nn.Identity()
    with pytest.raises(NotImplementedError, match='get_layer_depth'):
        model.get_layer_depth('backbone.x')


def test_strides_that_do_not_fit_the_anchors_are_refused():
    """A pyramid made for patches of 16 under patches of 8 would train and find nothing."""
    model = build(config())
    images = torch.zeros(1, 3, 64, 64)
    good = model.extract_feat(images)
    assert len(good) == len(model.rpn_head.prior_generator.strides)
    model.rpn_head.prior_generator.strides = [(s * 2, s * 2) for s, _ in model.rpn_head.prior_generator.strides]
    with pytest.raises(ValueError, match='maps of strides.*anchors are made for'):
        model.extract_feat(images)
