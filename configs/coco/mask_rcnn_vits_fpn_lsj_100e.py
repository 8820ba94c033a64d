"""Mask R-CNN with a windowed ViT-S/16 and FPN on COCO: the form of Li et al. 2021, a size that it does not publish.

    tools/dist_train.sh configs/coco/mask_rcnn_vits_fpn_lsj_100e.py 8 --cfg-options init=CKPT

Published: none. All settings are those of ViT-B (mask_rcnn_vitb_fpn_lsj_100e.py), not tuned for this size.
Cost: not measured here.
"""

_base_ = ['./mask_rcnn_vitb_fpn_lsj_100e.py']

model = dict(backbone=dict(arch='deit-small'), neck=dict(in_channels=384))
