"""Mask R-CNN with mmpretrain's Swin-B and FPN on COCO, 3x at several scales, for encoders of configs/simmim.

    tools/dist_train.sh configs/coco/mask_rcnn_swinb_fpn_ms_36e.py 8 --cfg-options init=CKPT

Published: none for this recipe. As mask_rcnn_swint_fpn_ms_36e.py but drop path 0.3 (not tuned) and windows of 6, those
of configs/simmim/simmim_swinb_800e.py; encoders with windows of 7: model.backbone.window_size=7 (tables of relative
positions of another window would be resized, which the load report says).
Cost: not measured here.
"""

_base_ = ['./mask_rcnn_swint_fpn_ms_36e.py']

model = dict(
    backbone=dict(arch='base', window_size=6, drop_path_rate=0.3), neck=dict(in_channels=[128, 256, 512, 1024])
)
