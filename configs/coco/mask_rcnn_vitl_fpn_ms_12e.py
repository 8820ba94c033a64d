"""Mask R-CNN with a ViT-L/16 and FPN on COCO, 1x at several scales: the recipe of CAE (Chen et al., IJCV 2023).

    tools/dist_train.sh configs/coco/mask_rcnn_vitl_fpn_ms_12e.py 8 --cfg-options init=CKPT

Published: box/mask AP MAE ViT-L 1600 epochs 54.0/47.1, CAE ViT-L 54.5/47.5. As mask_rcnn_vitb_fpn_ms_12e.py but lr
2e-4, layer decay 0.85, maps of blocks 8, 12, 16, 24.
Cost: not measured here.
"""

_base_ = ['./mask_rcnn_vitb_fpn_ms_12e.py']

model = dict(backbone=dict(arch='large', out_indices=(7, 11, 15, 23)), neck=dict(in_channels=1024))
optim_wrapper = dict(optimizer=dict(lr=2e-4), paramwise_cfg=dict(layer_decay_rate=0.85))
