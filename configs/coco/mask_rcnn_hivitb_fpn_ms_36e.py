"""Mask R-CNN with HiViT-B and FPN on COCO, 3x at several scales, for encoders of configs/emae/emae_hivitb_300e.py.

    tools/dist_train.sh configs/coco/mask_rcnn_hivitb_fpn_ms_36e.py 8 --cfg-options init=CKPT

Published: none for this recipe. Maps of strides 4, 8 and 16 from HiViT's own stages; it has no stage of stride 32, so
the FPN's last two levels are the third one at every second and fourth position. Global attention in the main stage,
recomputed in the backward pass. AdamW 1e-4, wd 0.05, layer decay 0.9 and drop path 0.2 (not tuned), batch 16 = 8 x 2,
36 epochs, x 0.1 after 27 and 33, warm-up 1000 iterations, bf16.
Cost: not measured here.
"""

_base_ = [
    '../_base_/models/mask_rcnn_fpn.py',
    '../_base_/datasets/coco_multiscale.py',
    '../_base_/schedules/coco_steps.py',
]
default_scope = 'mmdet'

model = dict(
    backbone=dict(_delete_=True, type='mim_mm.HiViTMaps', arch='base', drop_path_rate=0.2, with_cp=True),
    neck=dict(in_channels=[128, 256, 512]),
)
optim_wrapper = dict(paramwise_cfg=dict(layer_decay_rate=0.9))
train_dataloader = dict(batch_size=2)
param_scheduler = [
    dict(type='mim_mm.WarmupLR', start_factor=0.001, by_epoch=False, end=1000),
    dict(type='MultiStepLR', milestones=[27, 33]),
]
train_cfg = dict(by_epoch=True, max_epochs=36, val_interval=1)
auto_scale_lr = dict(base_batch_size=16)
