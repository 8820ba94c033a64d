"""Mask R-CNN with mmpretrain's ConvNeXt-T and FPN on COCO, 3x multi-scale (Liu et al., CVPR 2022; mmdet's recipe).

    tools/dist_train.sh configs/coco/mask_rcnn_convnextt_fpn_ms_36e.py 8 --cfg-options init=CKPT

Published: supervised ConvNeXt-T box/mask AP 46.2/41.7 (mmdet, 36 epochs). AdamW 1e-4, wd 0.05, layer decay 0.95 over 6
groups, drop path 0.4, batch 16 = 8 x 2, 36 epochs, x 0.1 after 27 and 33, warm-up 1000 iterations, bf16.
The norms of the maps are the detector's own; a checkpoint's norm of the last map is loaded.
Cost: not measured here.
"""

_base_ = [
    '../_base_/models/mask_rcnn_fpn.py',
    '../_base_/datasets/coco_multiscale.py',
    '../_base_/schedules/coco_steps.py',
]
default_scope = 'mmdet'

model = dict(
    backbone=dict(
        _delete_=True,
        type='mmpretrain.ConvNeXt',
        arch='tiny',
        drop_path_rate=0.4,
        layer_scale_init_value=1.0,
        out_indices=[0, 1, 2, 3],
        gap_before_final_norm=False,
    ),
    neck=dict(in_channels=[96, 192, 384, 768]),
)
optim_wrapper = dict(paramwise_cfg=dict(layer_decay_rate=0.95, bias_decay_mult=0.0, flat_decay_mult=0.0))
train_dataloader = dict(batch_size=2)
param_scheduler = [
    dict(type='mim_mm.WarmupLR', start_factor=0.001, by_epoch=False, end=1000),
    dict(type='MultiStepLR', milestones=[27, 33]),
]
train_cfg = dict(by_epoch=True, max_epochs=36, val_interval=1)
auto_scale_lr = dict(base_batch_size=16)
