"""Mask R-CNN with ViTDet-H on COCO: Li et al. 2022, "Exploring plain vision transformer backbones", 75 epochs.

    tools/dist_train.sh configs/coco/mask_rcnn_vith_simple_lsj_75e.py 8 --cfg-options init=CKPT

Published, MAE ViT-H 1600 epochs: box/mask AP 56.7/50.2. As mask_rcnn_vitb_simple_lsj_100e.py but layer decay 0.9, drop
path 0.5, blocks 8, 16, 24, 32 global, three quarters of the iterations, and weight decay on everything (detectron2's
file drops the exemptions for this size). MAE's ViT-H has patches of 14 px and ViTDet 16: the embedding is resampled
while loading (its load report says so), so that an image enlarged by 16/14 gives the tokens of the pretraining, and the
16 x 16 positions become 14 x 14. detectron2 ships a converted file and does not say how it was made.
Blocks are recomputed in the backward pass (with_cp) to save memory.
Cost: not measured here.
"""

_base_ = ['./mask_rcnn_vitb_simple_lsj_100e.py']

model = dict(backbone=dict(arch='huge', drop_path_rate=0.5, with_cp=True), neck=dict(in_channels=1280))
optim_wrapper = dict(paramwise_cfg=dict(layer_decay_rate=0.9, norm_decay_mult=1.0, no_decay=()))
param_scheduler = [
    dict(type='mim_mm.WarmupLR', start_factor=0.001, by_epoch=False, end=250),
    dict(type='MultiStepLR', by_epoch=False, milestones=[122916, 133159]),
]
train_cfg = dict(max_iters=138281)
custom_hooks = [
    dict(type='mim_mm.LoadPretrainedHook', checkpoint=None, target='backbone', resample_patches=True),
    dict(type='NumClassCheckHook'),
]
