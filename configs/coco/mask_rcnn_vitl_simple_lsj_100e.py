"""Mask R-CNN with ViTDet-L on COCO: Li et al. 2022, "Exploring plain vision transformer backbones", 100 epochs.

    tools/dist_train.sh configs/coco/mask_rcnn_vitl_simple_lsj_100e.py 8 --cfg-options init=CKPT

Published, MAE ViT-L 1600 epochs: box/mask AP 55.5/49.2. As mask_rcnn_vitb_simple_lsj_100e.py but layer decay 0.8 and
drop path 0.4; blocks 6, 12, 18, 24 global. Blocks are recomputed in the backward pass (with_cp) to save memory.
Cost: not measured here.
"""

_base_ = ['./mask_rcnn_vitb_simple_lsj_100e.py']

model = dict(backbone=dict(arch='large', drop_path_rate=0.4, with_cp=True), neck=dict(in_channels=1024))
optim_wrapper = dict(paramwise_cfg=dict(layer_decay_rate=0.8))
