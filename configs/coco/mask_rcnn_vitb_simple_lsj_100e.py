"""Mask R-CNN with ViTDet-B on COCO: Li et al. 2022, "Exploring plain vision transformer backbones", 100 epochs.

    tools/dist_train.sh configs/coco/mask_rcnn_vitb_simple_lsj_100e.py 8 --cfg-options init=CKPT

Published, MAE ViT-B 1600 epochs: box/mask AP 51.6/45.9. AdamW 1e-4, wd 0.1 (none for the backbone's norms and for
positions; the norms of pyramid and heads are decayed, as detectron2 does), layer decay 0.7, drop path 0.1, batch
64 = 8 x 8, 184375 iterations, warm-up 250, x 0.1 at 163889 and 177546. Windows of 14 (64 tokens are padded to 70),
blocks 3, 6, 9, 12 global, decomposed relative positions, positions of the pretraining grid resized in every pass.
Differences: bf16 instead of fp16, gradients are not compressed, the two offsets of a crop are drawn separately, masks
are bitmaps from the start (ViTDet: polygons until the crop of the mask head), so that boxes recomputed after the crop
lie on whole pixels and small objects that jittering enlarges have stepped edges.
A shorter run moves the steps too: param_scheduler.1.milestones=[A,B]. with_cp=True saves memory.
Cost: published 10.9 GB an image, 0.314 s an image on an A100 (about 1000 A100-hours); not measured here.
"""

_base_ = [
    '../_base_/models/mask_rcnn_vitb_simple.py',
    '../_base_/datasets/coco_lsj.py',
    '../_base_/schedules/coco_steps.py',
]
default_scope = 'mmdet'

decayed = dict(decay_mult=1.0)
optim_wrapper = dict(
    optimizer=dict(weight_decay=0.1),
    paramwise_cfg=dict(
        layer_decay_rate=0.7, custom_keys={'neck.': decayed, 'rpn_head.': decayed, 'roi_head.': decayed}
    ),
)
param_scheduler = [
    dict(type='mim_mm.WarmupLR', start_factor=0.001, by_epoch=False, end=250),
    dict(type='MultiStepLR', by_epoch=False, milestones=[163889, 177546]),
]
train_cfg = dict(type='IterBasedTrainLoop', max_iters=184375, val_interval=18438)
auto_scale_lr = dict(base_batch_size=64)
default_hooks = dict(checkpoint=dict(by_epoch=False, interval=4610))
log_processor = dict(by_epoch=False)
