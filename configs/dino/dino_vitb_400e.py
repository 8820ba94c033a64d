"""DINO, ViT-B/16, 400 epochs of ImageNet-1k (Caron et al., ICCV 2021).

    tools/dist_train.sh configs/dino/dino_vitb_400e.py 8

Published: k-NN 76.1, linear 78.2, of the teacher (custom_hooks.0.prefix=teacher.backbone.).
From memory, the arguments are outside the repository: epochs, ten small views split at 0.25, batch 1024, lr 7.5e-4, its
end 2e-6, clip 0.3, temperature 0.04 -> 0.07 over 50 epochs, normalised last layer fixed for 3 epochs. Check them before
a paper rests on this recipe.
Batch 1024 = 8 x 128, never accumulated: the centre is a mean over one batch. Other batches: --auto-scale-lr.
Cost: 17 h on 8 H100 at half of their bf16 peak, by FLOPs (473 GFLOP an image, all its views); not measured.
"""

_base_ = [
    '../_base_/models/dino_vit.py',
    '../_base_/datasets/imagenet_multi_crop_025.py',
    '../_base_/schedules/dino_pretrain.py',
    '../_base_/default_runtime.py',
]
train_cfg = dict(max_epochs=400)
model = dict(
    backbone=dict(arch='base'),
    head=dict(norm_last_layer=True),
    teacher_temp=dict(start=0.04, end=0.07, epochs=50),
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
