"""ViT-B/16 on ImageNet-1k from random weights: MAE's supervised recipe (He et al. 2022, appendix A.2, table 11).

    tools/dist_train.sh configs/finetune/vitb_scratch_300e.py 8

Published: 82.3 (MAE; the row "Supervised" of EMAE's table). Class token, AdamW with betas 0.9, 0.95, lr 1e-4 x batch /
256 = 1.6e-3 for 4096 images, wd 0.3, no layer decay, drop path 0.1, 300 epochs, warm-up 20, cosine to 0, RandAugment,
mixup, cutmix, average of the weights with decay 0.9999 (validated and saved). This is the recipe that mmpretrain names
vit-base-p16_32xb128-mae_in1k, restated; erasing 0.25 and truncated normal weights outside of the MLPs, which are Xavier
(MAE: Xavier throughout), are mmpretrain's.
Batch 8 x 512; less memory: train_dataloader.batch_size=128 optim_wrapper.accumulative_counts=4.
Cost: not measured here.
"""

_base_ = ['./vitb_finetune_100e.py']

model = dict(
    backbone=dict(out_type='cls_token', final_norm=True),
    head=dict(init_cfg=None),
    init_cfg=[
        dict(type='TruncNormal', layer='Linear', std=0.02),
        dict(type='Constant', layer='LayerNorm', val=1.0, bias=0.0),
    ],
)
train_dataloader = dict(batch_size=512)
optim_wrapper = dict(
    optimizer=dict(lr=1.6e-3, weight_decay=0.3, betas=(0.9, 0.95)), paramwise_cfg=dict(layer_decay_rate=1.0)
)
param_scheduler = [
    dict(type='mim_mm.WarmupLR', end=20, convert_to_iter_based=True),
    dict(type='mim_mm.HalfCosineLR', begin=20, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=300)
auto_scale_lr = dict(base_batch_size=4096)
custom_hooks = [
    dict(type='mim_mm.LoadPretrainedHook', checkpoint=None, prefix='backbone.', target='backbone', min_loaded=0.95),
    dict(type='mim_mm.ClassCountHook'),
    dict(type='EMAHook', momentum=1e-4),
]
