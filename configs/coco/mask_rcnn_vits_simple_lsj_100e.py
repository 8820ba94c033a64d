"""Mask R-CNN with a ViT-S/16 in ViTDet's form on COCO, 100 epochs: a size that ViTDet does not publish.

    tools/dist_train.sh configs/coco/mask_rcnn_vits_simple_lsj_100e.py 8 --cfg-options init=CKPT

Published: none. All settings are those of ViT-B (mask_rcnn_vitb_simple_lsj_100e.py), not tuned for this size.
Cost: not measured here.
"""

_base_ = ['./mask_rcnn_vitb_simple_lsj_100e.py']

model = dict(backbone=dict(arch='deit-small'), neck=dict(in_channels=384))
