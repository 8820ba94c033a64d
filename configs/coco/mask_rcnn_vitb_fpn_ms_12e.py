"""Mask R-CNN with a ViT-B/16 and FPN on COCO, 1x at several scales: the recipe of CAE (Chen et al., IJCV 2023).

    tools/dist_train.sh configs/coco/mask_rcnn_vitb_fpn_ms_12e.py 8 --cfg-options init=CKPT

Published: box/mask AP MAE ViT-B 1600 epochs 48.4/42.6, CAE ViT-B 1600 epochs 50.3/44.2. AdamW 3e-4, wd 0.05, layer
decay 0.75, drop path 0.2, batch 32 = 8 x 4 (published 16 x 2), 12 epochs, x 0.1 after 9 and 11, warm-up 500 iterations.
Global attention in all blocks, recomputed in the backward pass; no relative positions; the position table is resized to
42 x 68 while loading, again in every pass, and not trained. Maps of blocks 4, 6, 8, 12 without a final norm; GIoU box
loss x 10. SyncBN in pyramid and box head: on one process it is BatchNorm; it needs GPUs on several.
Differences: bf16 instead of fp16; positions and class token are exempt from decay, which that code intends and misses.
Cost: not measured here.
"""

_base_ = [
    '../_base_/models/mask_rcnn_vitb_fpn.py',
    '../_base_/datasets/coco_multiscale.py',
    '../_base_/schedules/coco_steps.py',
]
default_scope = 'mmdet'

norm = dict(type='SyncBN')
model = dict(
    data_preprocessor=dict(pad_size_divisor=32),
    backbone=dict(
        img_size=(672, 1088), window_size=0, rel_pos='none', drop_path_rate=0.2, out_indices=(3, 5, 7, 11), with_cp=True
    ),
    neck=dict(norm_cfg=norm, fpn=dict(norm_cfg=None)),
    rpn_head=dict(num_convs=1),
    roi_head=dict(
        bbox_head=dict(reg_decoded_bbox=True, loss_bbox=dict(_delete_=True, type='GIoULoss', loss_weight=10.0)),
        mask_head=dict(norm_cfg=None),
    ),
    train_cfg=dict(rcnn=dict(assigner=dict(match_low_quality=True))),
)
train_dataloader = dict(batch_size=4)
optim_wrapper = dict(
    optimizer=dict(lr=3e-4),
    paramwise_cfg=dict(layer_decay_rate=0.75, custom_keys=dict(pos_embed=dict(lr_mult=0.0, decay_mult=0.0))),
)
param_scheduler = [
    dict(type='mim_mm.WarmupLR', start_factor=0.001, by_epoch=False, end=500),
    dict(type='MultiStepLR', milestones=[9, 11]),
]
train_cfg = dict(by_epoch=True, max_epochs=12, val_interval=1)
auto_scale_lr = dict(base_batch_size=32)
