"""Mask R-CNN with a windowed ViT-L/16 and FPN on COCO: Li et al. 2021, "Benchmarking detection transfer".

    tools/dist_train.sh configs/coco/mask_rcnn_vitl_fpn_lsj_100e.py 8 --cfg-options init=CKPT

Published, MAE ViT-L 1600 epochs: box/mask AP 53.3/47.2. The paper searches lr, decay and drop path for each encoder and
the code that reproduces ViT-B has no ViT-L: lr 1.6e-4 and wd 0.2 are ViT-B's, drop path 0.4 is ViTDet-L's. Expect to
search: optim_wrapper.optimizer.{lr,weight_decay}, model.backbone.drop_path_rate with train_cfg.max_iters=46094 (25
epochs). Blocks 6, 12, 18, 24 are global and returned; blocks are recomputed in the backward pass (with_cp).
Cost: not measured here.
"""

_base_ = ['./mask_rcnn_vitb_fpn_lsj_100e.py']

model = dict(
    backbone=dict(arch='large', drop_path_rate=0.4, with_cp=True, out_indices=(5, 11, 17, 23)),
    neck=dict(in_channels=1024),
)
