"""The downstream recipes: they build at full size, state the published numbers, and run on small data unchanged.

Only what a user may set with --cfg-options is changed for the runs: sizes, batch, duration, data roots.
"""

import json

import numpy as np
import pytest
import torch
from built_recipes import CONFIGS, build, load
from downstream import ARCH, CLASSES, COCO, FINETUNE, IMAGE_OPTIONS, LINEAR, metrics_of, pretraining_checkpoint, small
from mmengine.optim import build_optim_wrapper
from mmengine.runner import Runner
from mmpretrain.models.backbones import VisionTransformer

from mim_mm.checkpoint.load import LoadError

# ---------------------------------------------------------------- the recipes as published


@pytest.mark.parametrize('name', [LINEAR, FINETUNE, COCO])
def test_form(name):
    cfg = load(name)
    assert cfg.custom_imports == dict(imports=['mim_mm'], allow_failed_imports=False)
    assert cfg.custom_hooks[0] == dict(
        type='mim_mm.LoadPretrainedHook', checkpoint=None, prefix='backbone.', target='backbone', min_loaded=0.95
    )
    assert cfg.default_scope == ('mmdet' if name == COCO else 'mmpretrain')
    text = (CONFIGS / name).read_text()
    duration = {LINEAR: '90', FINETUNE: '100', COCO: '184375'}[name]
    code = text.split('"""')[2]
    assert code.count(f'={duration},') == 1, 'the duration is stated once'
    for part in ('tools/dist_train.sh configs/' + name, 'Published', 'Cost'):
        assert part in text.split('"""')[1]


@pytest.mark.parametrize(
    'name, variable, key',
    [(LINEAR, 'IMAGENET_ROOT', 'train_dataloader'), (FINETUNE, 'IMAGENET_ROOT', 'val_dataloader'),
     (COCO, 'COCO_ROOT', 'train_dataloader')],
)  # fmt: skip
def test_data_root_follows_the_environment(monkeypatch, name, variable, key):
    monkeypatch.delenv(variable, raising=False)
    assert load(name)[key].dataset.data_root.rstrip('/') == 'data/' + variable.split('_')[0].lower()
    monkeypatch.setenv(variable, '/elsewhere/x')
    assert load(name)[key].dataset.data_root.rstrip('/') == '/elsewhere/x'


def test_linear_probe_trains_the_head_only_and_sees_the_same_features_twice():
    cfg = load(LINEAR)
    cfg.model.backbone.merge(dict(arch=ARCH, img_size=32, patch_size=8, frozen_stages=4))
    cfg.model.neck.input_features = cfg.model.head.in_channels = 32
    model = build(cfg).train()
    x = torch.randn(8, 3, 32, 32)
    assert torch.equal(model.backbone(x)[0], model.backbone(x)[0])
    assert {n for n, p in model.named_parameters() if p.requires_grad} == {
        'head.layers.head.weight',
        'head.layers.head.bias',
    }
    assert not list(model.neck.parameters()) and model.neck.bn.eps == 1e-6
    optimizer = build_optim_wrapper(model, cfg.optim_wrapper).optimizer
    (group,) = optimizer.param_groups  # mim_mm.LARS knows the bias by its shape
    assert type(optimizer).__module__ == 'mim_mm.engine.optim.lars' and (group['lr'], group['weight_decay']) == (
        6.4,
        0.0,
    )
    assert [p.ndim for p in group['params']] == [2, 1]
    assert cfg.train_pipeline[1].type == 'mim_mm.MAERandomResizedCrop' == cfg.train_dataloader.dataset.pipeline[1].type
    assert cfg.auto_scale_lr.base_batch_size == 16384 == 8 * cfg.train_dataloader.batch_size
    interpolations = [t.interpolation for t in (*cfg.train_pipeline, *cfg.test_pipeline) if 'interpolation' in t]
    assert interpolations == ['bicubic', 'bicubic']


def test_fine_tuning_scales_of_vit_b():
    cfg = load(FINETUNE)
    model = build(cfg)
    assert 86e6 < sum(p.numel() for p in model.parameters()) < 87e6
    groups = build_optim_wrapper(model, cfg.optim_wrapper).optimizer.param_groups
    found = {id(p): g for g in groups for p in g['params']}
    for name, power in (('patch_embed.projection.weight', 13), ('cls_token', 13), ('layers.11.attn.qkv.weight', 1)):
        assert found[id(model.backbone.get_parameter(name))]['lr'] == pytest.approx(2e-3 * 0.65**power), name
    head = found[id(model.head.fc.weight)]
    assert (head['lr'], head['weight_decay']) == (2e-3, 0.05)
    assert len(groups) == 28
    model.head.init_weights()
    assert model.head.fc.weight.std().item() == pytest.approx(2e-5, rel=0.05)


def test_detector_of_the_paper():
    cfg = load(COCO)
    model = build(cfg)
    millions = sum(p.numel() for p in model.parameters()) / 1e6
    assert millions == pytest.approx(118.7, abs=0.1)  # MIMDet's count for this detector
    backbone = model.backbone
    assert backbone.global_attn_indexes == (2, 5, 8, 11) and backbone.pos_embed.shape == (1, 64 * 64, 768)
    assert backbone.rel_pos_window.size == (16, 16) and backbone.rel_pos_global.size == (64, 64)
    groups = build_optim_wrapper(model, cfg.optim_wrapper).optimizer.param_groups
    free = {id(p) for g in groups if g['weight_decay'] == 0 for p in g['params']}
    names = {n for n, p in model.named_parameters() if id(p) in free}
    assert {'backbone.pos_embed', 'backbone.rel_pos_window.relative_position_bias_table'} <= names
    assert not any(n.endswith(('qkv.weight', 'qkv.bias', 'fc_cls.bias')) for n in names)
    assert {g['lr'] for g in groups} == {1.6e-4}
    assert cfg.auto_scale_lr.base_batch_size == 64 == 8 * cfg.train_dataloader.batch_size


# ---------------------------------------------------------------- the recipes on small data


@pytest.mark.parametrize('name', [LINEAR, FINETUNE])
def test_classification_recipe_runs_on_any_folders(tmp_path, image_folders, name):
    source = pretraining_checkpoint(tmp_path / 'epoch_1.pth')
    options = {**IMAGE_OPTIONS, 'init': str(tmp_path / 'epoch_1.pth')}
    if name == LINEAR:
        options |= {'model.neck.input_features': 32, 'model.backbone.frozen_stages': 4}
    cfg = small(load(name), tmp_path / 'run', **options)
    runner = Runner.from_cfg(cfg)
    runner.train()

    assert runner.iter == 4 and runner.train_dataloader.dataset.metainfo['classes'] == CLASSES
    assert runner.model.data_preprocessor.num_classes == 3
    report = json.loads((tmp_path / 'run' / 'load_report.json').read_text())
    assert report['fraction'] == 1.0 and not report['random']
    assert any('accuracy/top1' in row for row in metrics_of(tmp_path / 'run'))
    kept = torch.equal(runner.model.backbone.layers[0].attn.qkv.weight, source.layers[0].attn.qkv.weight)
    assert kept == (name == LINEAR), 'the probe leaves the encoder alone, fine-tuning trains it'
    rates = [g['lr'] for g in runner.optim_wrapper.param_groups]
    # The cosine spans the two iterations after the warm-up, so the last one ran half way from the top to the floor.
    top, floor = (6.4, 0.0) if name == LINEAR else (2e-3, 1e-6)
    assert max(rates) == pytest.approx((top + floor) / 2)
    assert min(rates) == pytest.approx((top + floor) / 2 * (1 if name == LINEAR else 0.65**5))


def test_wrong_number_of_classes_stops_before_training(tmp_path, image_folders):
    options = {**IMAGE_OPTIONS, 'model.head.num_classes': 1000}
    runner = Runner.from_cfg(small(load(FINETUNE), tmp_path / 'run', **options))
    with pytest.raises(ValueError, match='3 classes, the head 1000.*num_classes=3'):
        runner.train()


def test_checkpoint_of_another_architecture_stops_before_training(tmp_path, image_folders):
    deeper = VisionTransformer(arch=dict(ARCH, num_layers=2), img_size=32, patch_size=16)
    torch.save({'state_dict': {f'backbone.{k}': v for k, v in deeper.state_dict().items()}}, tmp_path / 'a.pth')
    options = {**IMAGE_OPTIONS, 'init': str(tmp_path / 'a.pth')}
    runner = Runner.from_cfg(small(load(FINETUNE), tmp_path / 'run', **options))
    with pytest.raises(LoadError, match='at least 95 %'):
        runner.train()


def test_detection_recipe_runs_on_coco_format_data(tmp_path, coco_root):
    source = pretraining_checkpoint(tmp_path / 'epoch_1.pth')
    options = {
        'init': str(tmp_path / 'epoch_1.pth'),
        'model.data_preprocessor.pad_size_divisor': 64,
        'model.backbone.img_size': 64,
        'model.backbone.window_size': 2,
        'model.backbone.global_attn_indexes': (1, 3),
        'model.backbone.out_indices': (0, 1, 2, 3),
        'model.neck.in_channels': 32,
        'model.neck.fpn.out_channels': 16,
        'model.rpn_head.in_channels': 16,
        'model.rpn_head.feat_channels': 16,
        'model.roi_head.bbox_roi_extractor.out_channels': 16,
        'model.roi_head.mask_roi_extractor.out_channels': 16,
        'model.roi_head.bbox_head.in_channels': 16,
        'model.roi_head.bbox_head.conv_out_channels': 16,
        'model.roi_head.bbox_head.fc_out_channels': 32,
        'model.roi_head.bbox_head.num_classes': 2,
        'model.roi_head.mask_head.in_channels': 16,
        'model.roi_head.mask_head.conv_out_channels': 16,
        'model.roi_head.mask_head.num_classes': 2,
        'model.test_cfg.rcnn.score_thr': 0.0,
        'train_dataloader.batch_size': 2,
        'train_dataloader.dataset.metainfo': dict(classes=('person', 'bicycle')),
        'val_dataloader.dataset.metainfo': dict(classes=('person', 'bicycle')),
        'train_dataloader.dataset.pipeline.3.scale': (64, 64),
        'train_dataloader.dataset.pipeline.4.crop_size': (64, 64),
        'val_dataloader.dataset.pipeline.1.scale': (64, 64),
        'train_cfg.max_iters': 4,
        'train_cfg.val_interval': 4,
        'param_scheduler.0.end': 2,
        'param_scheduler.1.begin': 2,
        'default_hooks.logger.interval': 1,
    }
    cfg = small(load(COCO), tmp_path / 'run', **options)
    runner = Runner.from_cfg(cfg)
    runner.train()

    rows = metrics_of(tmp_path / 'run')
    assert all(np.isfinite(row['loss']) for row in rows if 'loss' in row)
    assert {'coco/bbox_mAP', 'coco/segm_mAP'} <= set(rows[-1])
    report = json.loads((tmp_path / 'run' / 'load_report.json').read_text())
    assert report['fraction'] == 1.0 and list(report['resized']) == ['pos_embed']
    assert set(report['by_design']) == {
        'rel_pos_global.relative_position_bias_table',
        'rel_pos_window.relative_position_bias_table',
    }
    assert not torch.equal(runner.model.backbone.layers[0].attn.qkv.weight, source.layers[0].attn.qkv.weight)
    assert runner.optim_wrapper.param_groups[0]['lr'] == pytest.approx(1.6e-4 / 2)  # half way down, as above
    assert runner.iter == 4


def test_detector_with_a_wrong_number_of_classes_stops(tmp_path, coco_root):
    options = {'model.roi_head.bbox_head.num_classes': 5, 'model.backbone.out_indices': (0, 1, 2, 3)}
    runner = Runner.from_cfg(small(load(COCO), tmp_path / 'run', **options))
    with pytest.raises(AssertionError, match='num_classes'):
        runner.train()
