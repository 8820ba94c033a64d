"""Mask R-CNN with a windowed ViT-B/16 and FPN on COCO: Li et al. 2021, "Benchmarking detection transfer".

    tools/dist_train.sh configs/coco/mask_rcnn_vitb_fpn_lsj_100e.py 8 --cfg-options init=CKPT

Published, MAE ViT-B 1600 epochs: box/mask AP 50.3/44.9 (25 and 50 epochs: 48.1/43.2, 50.1/44.6). lr, decay and
drop path are those with which MIMDet reproduces it (50.4/44.9): AdamW 1.6e-4, wd 0.2 (none for norms, positions and
relative positions), drop path 0.1, no layer decay, batch 64 = 8 x 8, 100 epochs = 184375 iterations, warm-up a quarter
of an epoch, cosine. Blocks 3, 6, 9, 12 global, the others windows of 16 (64 = 4 x 16 tokens: no padding).
Relative positions: BEiT-style tables, one for all windowed and one for all global blocks, zero at the start, as in
MIMDet; model.backbone.rel_pos=decomposed is ViTDet's form, which needs no N x N bias and less memory.
SyncBN in FPN and heads as published: on one process it is BatchNorm; it needs GPUs on several.
Differences: bf16 instead of fp16; masks are bitmaps from the start and not polygons until the crop of the mask head, so
that boxes recomputed after the crop lie on whole pixels and small objects that jittering enlarges have stepped edges.
Other COCO-format data: COCO_ROOT=DIR, model.roi_head.{bbox_head,mask_head}.num_classes=N (docs/transfer.md).
Cost: not measured here (ViTDet without fused attention: 10.9 GB an image, about 1000 A100-hours for its 100 epochs).
"""

_base_ = [
    '../_base_/models/mask_rcnn_vitb_fpn.py',
    '../_base_/datasets/coco_lsj.py',
    '../_base_/schedules/coco_steps.py',
]
default_scope = 'mmdet'

optim_wrapper = dict(
    optimizer=dict(lr=1.6e-4, weight_decay=0.2),
    paramwise_cfg=dict(no_decay=('pos_embed', 'rel_pos_global', 'rel_pos_window')),
)
param_scheduler = [
    dict(type='mim_mm.WarmupLR', start_factor=0.001, by_epoch=False, end=461),
    dict(type='mim_mm.HalfCosineLR', by_epoch=False, begin=461),
]
train_cfg = dict(type='IterBasedTrainLoop', max_iters=184375, val_interval=18438)
auto_scale_lr = dict(base_batch_size=64)
default_hooks = dict(checkpoint=dict(by_epoch=False, interval=4610))
log_processor = dict(by_epoch=False)
