"""Attentive probe of CAE, ViT-B/16, on ImageNet-1k (Chen et al., IJCV 2023, tools/run_attentive.py).

    tools/dist_train.sh configs/linear/vitb_cae_attentive_90e.py 8 --cfg-options init=CKPT

Published: CAE ViT-B 300 / 800 / 1600 epochs 74.0 / 75.9 / 77.2; MAE ViT-B 1600 in the same table 74.2.
Frozen encoder, one cross-attention with a learnt query on all its tokens, BatchNorm without affine, linear layer. SGD
with Nesterov momentum 0.9, lr 0.4 for 8192 images, 90 epochs, warm-up 10, cosine to 1e-6; crop and flip only. Batch
8 x 1024. Other batches: --auto-scale-lr. Other data: IMAGENET_ROOT=DIR and model.head.num_classes=N. Encoders without
layer scale (MAE, EMAE): model.backbone.layer_scale_init_value=0.
Differences: 32 x 256 images there, so that BatchNorm saw 256; bf16 (fp16).
Cost: not measured here.
"""

_base_ = [
    '../_base_/models/vitb_frozen_probe.py',
    '../_base_/datasets/imagenet_linear.py',
    '../_base_/schedules/linear_sgd.py',
    '../_base_/downstream_runtime.py',
]
default_scope = 'mmpretrain'

model = dict(
    backbone=dict(layer_scale_init_value=0.1),
    pool='tokens',
    neck=dict(type='mim_mm.AttentivePool', embed_dims=768, num_heads=12),
)
train_dataloader = dict(batch_size=1024)
val_dataloader = dict(batch_size=256)
optim_wrapper = dict(type='mim_mm.AutocastOptimWrapper', optimizer=dict(lr=0.4, nesterov=True))
param_scheduler = [
    dict(type='mim_mm.WarmupLR', end=10, convert_to_iter_based=True, like='beit'),
    dict(type='mim_mm.HalfCosineLR', eta_min=1e-6, begin=10, convert_to_iter_based=True, like='beit'),
]
train_cfg = dict(max_epochs=90)
auto_scale_lr = dict(base_batch_size=8192)
custom_hooks = [
    dict(type='mim_mm.LoadPretrainedHook', checkpoint=None, prefix='backbone.', target='backbone', complete=True),
    dict(type='mim_mm.ClassCountHook'),
    dict(type='SyncBuffersHook'),
]
