"""As mask_rcnn_vitb_fpn_lsj_100e.py (recipe behind MAE's COCO table) for cards of 24 GB.

    tools/dist_train.sh configs/coco/mask_rcnn_vitb_fpn_lsj_24gb_100e.py 8 --cfg-options init=CKPT

Published: as there, box/mask AP 50.3/44.9, with 8 images a GPU. Batch 64 = 8 x 2 x 4 accumulated, so four iterations
make a step and all durations are four times as long; blocks are recomputed in the backward pass. The one difference in
the result: SyncBN sees 16 images instead of 64.
One card: optim_wrapper.accumulative_counts=32 and the durations times 8 (max_iters 5900000, end and begin 14752,
val_interval 590016); SyncBN then sees 2 images. Shorter: docs/transfer.md.
Memory: 7 to 13 GB a card by count (docs/transfer.md), not measured on one.
Cost: not measured here.
"""

_base_ = ['./mask_rcnn_vitb_fpn_lsj_100e.py']

model = dict(backbone=dict(with_cp=True))
train_dataloader = dict(batch_size=2)
optim_wrapper = dict(accumulative_counts=4)
param_scheduler = [
    dict(type='mim_mm.WarmupLR', start_factor=0.001, by_epoch=False, end=4 * 461),
    dict(type='mim_mm.HalfCosineLR', by_epoch=False, begin=4 * 461),
]
train_cfg = dict(max_iters=4 * 184375, val_interval=4 * 18438)
default_hooks = dict(checkpoint=dict(interval=4 * 4610))
