"""Demo, Mask R-CNN on digit scenes (128 px, 2 to 6 digits each): both arms use this file, one with a checkpoint.

    python tools/train.py configs/demo/mask_rcnn.py --cfg-options init=CKPT

Cost: see docs/demo.md. A small Mask R-CNN: strides 4, 8, 16 from one ViT map, GroupNorm, class-agnostic heads.
"""

_base_ = ['../_base_/downstream_runtime.py', 'mmdet::_base_/models/mask-rcnn_r50_fpn.py']
default_scope = 'mmdet'
data_root = r"""{{$DEMO_ROOT:data/demo}}/coco/"""
max_iters = 280
width = 64
norm = dict(type='GN', num_groups=8)

custom_hooks = [
    dict(type='mim_mm.LoadPretrainedHook', checkpoint=None, prefix='backbone.', target='backbone', min_loaded=0.95)
]
model = dict(
    data_preprocessor=dict(mean=[110.0] * 3, std=[64.0] * 3, bgr_to_rgb=False, pad_size_divisor=16),
    backbone=dict(
        _delete_=True,
        type='mim_mm.WindowedViT',
        arch=dict(embed_dims=128, num_layers=4, num_heads=4, feedforward_channels=512),
        img_size=128,
        pretrain_img_size=64,
        patch_size=8,
        window_size=8,
        global_attn_indexes=[1, 3],
        rel_pos='none',
        final_norm=True,
    ),
    neck=dict(
        _delete_=True,
        type='mim_mm.DeconvPyramid',
        in_channels=128,
        scales=(2, 1, 0.5),
        fpn=dict(type='FPN', out_channels=width, num_outs=3, norm_cfg=norm),
    ),
    rpn_head=dict(
        in_channels=width,
        feat_channels=width,
        anchor_generator=dict(scales=[4, 5.66], ratios=[1.0, 1.7], strides=[4, 8, 16]),
    ),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=width, featmap_strides=[4, 8, 16], finest_scale=16),
        bbox_head=dict(in_channels=width, fc_out_channels=256, num_classes=10, reg_class_agnostic=True),
        mask_roi_extractor=dict(
            out_channels=width,
            featmap_strides=[4, 8, 16],
            finest_scale=16,
            roi_layer=dict(type='RoIAlign', output_size=14, sampling_ratio=1),
        ),
        mask_head=dict(num_convs=2, in_channels=width, conv_out_channels=width, num_classes=10, class_agnostic=True),
    ),
    train_cfg=dict(
        rpn=dict(sampler=dict(num=128)),
        rpn_proposal=dict(nms_pre=200, max_per_img=100),
        rcnn=dict(sampler=dict(num=32)),
    ),
    test_cfg=dict(rpn=dict(nms_pre=200, max_per_img=100), rcnn=dict(max_per_img=20)),
)

metainfo = dict(classes=('0', '1', '2', '3', '4', '5', '6', '7', '8', '9'))
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='PackDetInputs'),
]
val_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(128, 128), keep_ratio=True),  # already that size; mmdet wants the scale factor it notes
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]
train_dataloader = dict(
    batch_size=8,
    num_workers=0,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        type='CocoDataset',
        data_root=data_root,
        metainfo=metainfo,
        ann_file='annotations/instances_train2017.json',
        data_prefix=dict(img='train2017/'),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=8,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='CocoDataset',
        data_root=data_root,
        metainfo=metainfo,
        ann_file='annotations/instances_val2017.json',
        data_prefix=dict(img='val2017/'),
        test_mode=True,
        pipeline=val_pipeline,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(
    type='mim_mm.InMemoryCocoMetric',
    ann_file=data_root + 'annotations/instances_val2017.json',
    metric=['bbox', 'segm'],
)
test_evaluator = val_evaluator
# For DetInferencer and mmdet's drawing hook; it logs as mmengine's own does.
visualizer = dict(type='DetLocalVisualizer', vis_backends=[dict(type='LocalVisBackend')])

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.05, fused=True),
    clip_grad=dict(max_norm=5.0),
)
param_scheduler = [
    dict(type='mim_mm.WarmupLR', start_factor=0.01, by_epoch=False, end=50),
    dict(type='mim_mm.HalfCosineLR', by_epoch=False, begin=50, end=max_iters, eta_min=1e-5),
]
log_processor = dict(by_epoch=False)
train_cfg = dict(type='IterBasedTrainLoop', max_iters=max_iters, val_interval=max_iters // 2)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
default_hooks = dict(
    logger=dict(interval=10, log_metric_by_epoch=False),
    checkpoint=dict(interval=max_iters, by_epoch=False),
)
