"""iBOT, ViT-L/16, 250 epochs of ImageNet-1k (Zhou et al., ICLR 2022).

    tools/dist_train.sh configs/ibot/ibot_vitl_250e.py 8

Published: k-NN 78.0, linear 81.0, fine-tune 84.8; of the teacher
(custom_hooks.0.prefix=teacher.backbone.).
From memory, not in any repository of ours: epochs, lr 7.5e-4, its end 2e-6, clip 0.3, temperature over 50 epochs,
normalised last layer fixed for 3 epochs, crops split at 0.32. Check them before a paper rests on this recipe.
Batch 1024 = 8 x 128, never accumulated: the centres are means over one batch. Other batches: --auto-scale-lr.
Cost: 38 h on 8 H100 at half of their bf16 peak, by FLOPs (1674 GFLOP an image, all its views); not measured.
"""

_base_ = [
    '../_base_/models/ibot_vit.py',
    '../_base_/datasets/imagenet_multi_crop_032.py',
    '../_base_/schedules/dino_pretrain.py',
    '../_base_/default_runtime.py',
]
train_cfg = dict(max_epochs=250)
model = dict(
    backbone=dict(arch='large'),
    head=dict(norm_last_layer=True),
    teacher_temp=dict(epochs=50),
    patch_temp=dict(epochs=50),
)
optim_wrapper = dict(optimizer=dict(lr=7.5e-4 * 1024 / 256), clip_grad=dict(max_norm=0.3))
param_scheduler = [
    dict(type='WarmupLR', by_epoch=True, end=10, convert_to_iter_based=True, like='beit'),
    dict(type='HalfCosineLR', eta_min=2e-6, by_epoch=True, begin=10, convert_to_iter_based=True, like='beit'),
    dict(type='HalfCosineWeightDecay', eta_min=0.4, by_epoch=True, convert_to_iter_based=True, like='beit'),
]
custom_hooks = [
    dict(type='FreezeHook', parts=['last_layer'], epochs=3),
    dict(type='CollapseHook', interval=100),
]
default_hooks = dict(checkpoint=dict(interval=10))
