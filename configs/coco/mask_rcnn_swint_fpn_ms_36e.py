"""Mask R-CNN with mmpretrain's Swin-T and FPN on COCO, 3x at several scales (Liu et al., ICCV 2021; mmdet's recipe).

    tools/dist_train.sh configs/coco/mask_rcnn_swint_fpn_ms_36e.py 8 --cfg-options init=CKPT

Published: supervised Swin-T box/mask AP 46.0/41.6 (mmdet, 36 epochs). AdamW 1e-4, wd 0.05 (none for norms and relative
positions), drop path 0.2, batch 16 = 8 x 2, 36 epochs, x 0.1 after 27 and 33, warm-up 1000 iterations, bf16.
The norms of the first three maps are the detector's own and start at one and zero: no pretraining has them.
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
        type='mmpretrain.SwinTransformer',
        arch='tiny',
        drop_path_rate=0.2,
        out_indices=(0, 1, 2, 3),
        pad_small_map=True,
    ),
    neck=dict(in_channels=[96, 192, 384, 768]),
)
optim_wrapper = dict(paramwise_cfg=dict(no_decay=('relative_position_bias_table', 'absolute_pos_embed')))
train_dataloader = dict(batch_size=2)
param_scheduler = [
    dict(type='mim_mm.WarmupLR', start_factor=0.001, by_epoch=False, end=1000),
    dict(type='MultiStepLR', milestones=[27, 33]),
]
train_cfg = dict(by_epoch=True, max_epochs=36, val_interval=1)
auto_scale_lr = dict(base_batch_size=16)
