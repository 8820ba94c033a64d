"""Linear probe of ViT-B/16 on ImageNet-1k: MAE's protocol (He et al. 2022, appendix A.1, table 10).

    tools/dist_train.sh configs/linear/vitb_linear_90e.py 8 --cfg-options init=CKPT

Published: MAE ViT-B 1600 epochs 68.0 (67.8 with MAE's PyTorch release; mmpretrain's probe 67.1). Head on the class
token: BatchNorm without affine, then linear. LARS, lr 6.4 for 16384 images, momentum 0.9, no decay, 90 epochs,
warm-up 10. Batch 8 x 2048. Other batches: --auto-scale-lr. Other data: IMAGENET_ROOT=DIR and model.head.num_classes=N.
Differences from mmpretrain's config of this protocol: bicubic crops drawn once, LARS as MAE has it (no trust ratio for
the bias, the rate outside of the momentum buffer), auto_scale_lr based on 16384 (inherited there: 1024, sixteen times
too high a rate), BatchNorm statistics averaged over the ranks, bf16.
Cost: MAE reports 2 h 20 min on 32 V100; not measured here.
"""

_base_ = [
    '../_base_/models/vitb_linear.py',
    '../_base_/datasets/imagenet_linear_one_draw.py',
    '../_base_/downstream_runtime.py',
]
default_scope = 'mmpretrain'

train_dataloader = dict(batch_size=2048)
val_dataloader = dict(batch_size=256)
optim_wrapper = dict(
    type='mim_mm.AutocastOptimWrapper',
    optimizer=dict(type='mim_mm.LARS', lr=6.4, momentum=0.9, weight_decay=0.0),
    constructor='mim_mm.LayerDecayConstructor',
)
param_scheduler = [
    dict(type='mim_mm.WarmupLR', end=10, convert_to_iter_based=True),
    dict(type='mim_mm.HalfCosineLR', begin=10, convert_to_iter_based=True),
]
train_cfg = dict(by_epoch=True, max_epochs=90, val_interval=1)
val_cfg = dict()
test_cfg = dict()
auto_scale_lr = dict(base_batch_size=16384)
custom_hooks = [
    dict(type='mim_mm.LoadPretrainedHook', checkpoint=None, prefix='backbone.', target='backbone', min_loaded=0.95),
    dict(type='mim_mm.ClassCountHook'),
    dict(type='SyncBuffersHook'),
]
