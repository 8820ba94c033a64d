"""Two iterations of each kind of recipe through mmengine's Runner, from a checkpoint, on small data.

Only what a user may set with --cfg-options is changed: sizes, batch, duration, data roots.
"""

import json

import numpy as np
import pytest
import torch
from built_recipes import load
from downstream import ARCH, IMAGE_OPTIONS, metrics_of, pretraining_checkpoint, small
from mmengine.runner import Runner
from mmpretrain.models import ConvNeXt, HiViT, SwinTransformer

from mim_mm.checkpoint.load import load_encoder
from mim_mm.engine.start import guard
from mim_mm.registry import MODELS


@pytest.mark.parametrize('name', ['linear/vits_linear_mean_90e.py', 'finetune/vits_finetune_200e.py'])
def test_classification_kinds_run(tmp_path, image_folders, name):
    pretraining_checkpoint(tmp_path / 'epoch_1.pth')
    options = {**IMAGE_OPTIONS, 'init': str(tmp_path / 'epoch_1.pth'), 'train_cfg.max_epochs': 1}
    options |= {'param_scheduler.0.end': 0.5, 'param_scheduler.1.begin': 0.5}
    if 'linear' in name:
        options |= {'model.neck.input_features': 32, 'model.backbone.frozen_stages': 4}
    runner = Runner.from_cfg(small(load(name), tmp_path / 'run', **options))
    runner.train()

    assert runner.iter == 2 and any('accuracy/top1' in row for row in metrics_of(tmp_path / 'run'))
    assert json.loads((tmp_path / 'run' / 'load_report.json').read_text())['fraction'] == 1.0
    backbone = runner.model.backbone.eval() or runner.model.backbone
    images = torch.randn(2, 3, 32, 32)
    (feature,) = backbone(images)
    tokens = {}
    backbone.layers[-1].register_forward_hook(lambda module, args, out: tokens.update(last=out))
    backbone(images)
    if 'linear' in name:
        # a norm with weight 1 and bias 0 over the mean of the patch tokens, by its definition
        mean = tokens['last'][:, 1:].mean(1)
        var = mean.var(-1, unbiased=False, keepdim=True)
        wanted = (mean - mean.mean(-1, keepdim=True)) / (var + backbone.ln2.eps).sqrt()
    else:
        wanted = torch.nn.functional.layer_norm(
            tokens['last'][:, 0], (32,), backbone.ln1.weight, backbone.ln1.bias, backbone.ln1.eps
        )
    torch.testing.assert_close(feature, wanted, atol=1e-5, rtol=1e-4)


WIDTH = 16
DETECTION_OPTIONS = {
    'model.rpn_head.in_channels': WIDTH,
    'model.rpn_head.feat_channels': WIDTH,
    'model.roi_head.bbox_roi_extractor.out_channels': WIDTH,
    'model.roi_head.mask_roi_extractor.out_channels': WIDTH,
    'model.roi_head.bbox_head.in_channels': WIDTH,
    'model.roi_head.bbox_head.fc_out_channels': 32,
    'model.roi_head.bbox_head.num_classes': 2,
    'model.roi_head.mask_head.in_channels': WIDTH,
    'model.roi_head.mask_head.conv_out_channels': WIDTH,
    'model.roi_head.mask_head.num_classes': 2,
    'model.test_cfg.rcnn.score_thr': 0.0,
    'model.test_cfg.rcnn.max_per_img': 5,
    'model.test_cfg.rpn.nms_pre': 100,
    'model.train_cfg.rpn_proposal.nms_pre': 100,
    'model.train_cfg.rcnn.sampler.num': 32,
    'train_dataloader.batch_size': 2,
    'train_dataloader.dataset.metainfo': dict(classes=('person', 'bicycle')),
    'val_dataloader.dataset.metainfo': dict(classes=('person', 'bicycle')),
    'default_hooks.logger.interval': 1,
    'param_scheduler.0.end': 2,
}
LSJ = {
    'model.data_preprocessor.pad_size_divisor': 64,
    'model.backbone.img_size': 64,
    'train_dataloader.dataset.pipeline.3.scale': (64, 64),
    'train_dataloader.dataset.pipeline.4.crop_size': (64, 64),
    'val_dataloader.dataset.pipeline.1.scale': (64, 64),
    'train_cfg.max_iters': 3,
    'train_cfg.val_interval': 3,
    'param_scheduler.1.milestones': [2],
}
MULTI_SCALE = {  # 4 images in batches of 2: one epoch is two iterations
    'train_cfg.max_epochs': 1,
    'val_dataloader.dataset.pipeline.1.scale': (96, 64),
    'param_scheduler.1.milestones': [1],
}


def shrink_scales(cfg):
    """A tenth of the published sizes; the pipeline stays."""
    resize, crop = cfg.train_dataloader.dataset.pipeline[3].transforms
    for step in (resize[0], crop[0], crop[2]):
        step.scales = [(short // 10, long // 10) for short, long in step.scales]
    crop[1].crop_size = (38, 60)
    return cfg


def fpn(*channels):
    return {'model.neck.in_channels': list(channels), 'model.neck.out_channels': WIDTH}


def swin_encoder():
    arch = dict(embed_dims=16, depths=[1, 1, 2, 1], num_heads=[1, 1, 2, 2])
    return SwinTransformer(arch=arch, window_size=7), arch, fpn(16, 32, 64, 128)


def convnext_encoder():
    arch = dict(depths=[1, 1, 2, 1], channels=[16, 32, 64, 128])
    return ConvNeXt(arch=arch, layer_scale_init_value=1.0), arch, fpn(16, 32, 64, 128)


def hivit_encoder():
    arch = dict(embed_dims=64, depths=[1, 1, 2], num_heads=2)
    return HiViT(arch=arch, out_indices=[1]), arch, fpn(16, 32, 64)


def vit_encoder():
    return None, ARCH, {
        'model.neck.in_channels': 32, 'model.neck.fpn.out_channels': WIDTH, 'model.backbone.img_size': (64, 96),
        'model.backbone.out_indices': (0, 1, 2, 3), 'model.roi_head.bbox_head.conv_out_channels': WIDTH,
    }  # fmt: skip


def check_detection_run(runner, folder, iterations):
    rows = metrics_of(folder)
    losses = [row['loss'] for row in rows if 'loss' in row]
    assert runner.iter == len(losses) == iterations and np.isfinite(losses).all()
    assert {'coco/bbox_mAP', 'coco/segm_mAP'} <= set(rows[-1])
    return json.loads((folder / 'load_report.json').read_text())


def small_vitdet(work_dir, **options):
    """The ViTDet recipe for images of 64 px and three iterations."""
    options = {
        **DETECTION_OPTIONS, **LSJ, 'model.backbone.window_size': 3, 'model.neck.in_channels': 32,
        'model.neck.out_channels': WIDTH, 'model.roi_head.bbox_head.conv_out_channels': WIDTH, **options,
    }  # fmt: skip
    return small(load('coco/mask_rcnn_vitb_simple_lsj_100e.py'), work_dir, **options)


def test_vitdet_runs(tmp_path, coco_root):
    pretraining_checkpoint(tmp_path / 'epoch_1.pth')
    checkpoint = {'init': str(tmp_path / 'epoch_1.pth')}
    runner = Runner.from_cfg(small_vitdet(tmp_path / 'run', **checkpoint))
    runner.train()

    report = check_detection_run(runner, tmp_path / 'run', 3)
    assert not report['random'] and set(report['by_design']) == {
        f'layers.{i}.attn.rel_pos_{axis}' for i in range(4) for axis in 'hw'
    }
    assert max(g['lr'] for g in runner.optim_wrapper.param_groups) == pytest.approx(1e-5), (
        'the step after one iteration'
    )


def test_fast_evaluation_is_a_switch(tmp_path, coco_root):
    cfg = small_vitdet(tmp_path / 'run', **{'val_evaluator.type': 'mim_mm.FastCocoMetric'})
    guard.check_config(cfg)
    Runner.from_cfg(cfg).train()
    assert {'coco/bbox_mAP', 'coco/segm_mAP'} <= set(metrics_of(tmp_path / 'run')[-1])


@pytest.mark.parametrize(
    'name, encoder, prefix_of_random',
    [
        ('vitb_fpn_ms_12e', vit_encoder, ()),
        ('swint_fpn_ms_36e', swin_encoder, ('norm0', 'norm1', 'norm2')),
        ('convnextt_fpn_ms_36e', convnext_encoder, ('norm0', 'norm1', 'norm2')),
        ('hivitb_fpn_ms_36e', hivit_encoder, ()),
    ],
)
def test_multi_scale_recipe_of_each_family_runs(tmp_path, coco_root, name, encoder, prefix_of_random):
    source, arch, family = encoder()
    path = tmp_path / 'epoch_1.pth'
    if source is None:
        source = pretraining_checkpoint(path)
    else:
        torch.save({'state_dict': {f'backbone.{k}': v for k, v in source.state_dict().items()}}, path)
    options = {
        **DETECTION_OPTIONS, **MULTI_SCALE, **family, 'init': str(path),
        'model.backbone.arch': dict(arch, _delete_=True),
    }  # fmt: skip
    cfg = shrink_scales(small(load(f'coco/mask_rcnn_{name}.py'), tmp_path / 'run', **options))
    runner = Runner.from_cfg(cfg)
    runner.train()

    report = check_detection_run(runner, tmp_path / 'run', 2)
    assert {n.split('.')[0] for n in report['random']} == set(prefix_of_random) and report['fraction'] > 0.95
    learnt = dict(runner.model.backbone.named_parameters())
    gaps = [(learnt[n] - p).abs().max() for n, p in source.named_parameters() if n in report['loaded'] and p.ndim > 1]
    # two small steps: every matrix of the encoder has moved, none is far from what was loaded
    assert len(gaps) > 10 and 0 < min(gaps) and max(gaps) < 2e-3


def test_swin_of_our_simmim_fits_and_another_window_is_resized(tmp_path):
    """Windows of 6 (configs/simmim) fit the Swin-B recipe; those of 7 get resized tables, as the report says."""
    arch = dict(embed_dims=16, depths=[1, 1, 2, 1], num_heads=[1, 1, 2, 2])
    kind = MODELS.get('mmpretrain.SimMIMSwinTransformer')
    options = load('simmim/simmim_swinb_800e.py').model.backbone.stage_cfgs
    state = {f'backbone.{k}': v for k, v in kind(arch=arch, img_size=192, stage_cfgs=options).state_dict().items()}
    windows = load('coco/mask_rcnn_swinb_fpn_ms_36e.py').model.backbone.window_size
    assert windows == 6

    def target(window):
        return SwinTransformer(arch=arch, window_size=window, out_indices=(0, 1, 2, 3), pad_small_map=True)

    path = tmp_path / 'epoch_1.pth'
    torch.save({'state_dict': state}, path)
    report = load_encoder(target(windows), path)
    assert {n.split('.')[0] for n in report.random} == {'norm0', 'norm1', 'norm2'}
    resized = load_encoder(target(7), path).resized
    assert len(resized) == 5 and set(resized.values()) == {f'(121, {h}) -> (169, {h})' for h in (1, 2)}
