"""Fine-tuning of ViT-B/16 on ImageNet-1k with DeiT's protocol, as MoCo v3 does (Chen et al., ICCV 2021).

    tools/dist_train.sh configs/finetune/vitb_finetune_mocov3_150e.py 8 --cfg-options init=CKPT

Published: MoCo v3 ViT-B 83.2. Class token after the final norm, AdamW, lr 5e-4 x batch / 512, no layer decay, drop
path 0.1, 150 epochs, warm-up 5 from 1e-6, cosine to 1e-5 (set once an epoch, one epoch late and counted from the first,
as timm does in DeiT's code), three views of an image in a batch, no clipping (mmpretrain: clipped at 5, no repeated
views). DeiT's code keeps an average of the weights too and measures the trained ones: there is none here.
Batch 8 x 128.
Cost: not measured here.
"""

_base_ = ['./vitb_finetune_100e.py']

model = dict(
    backbone=dict(out_type='cls_token', final_norm=True),
    head=dict(init_cfg=[dict(type='TruncNormal', layer='Linear', std=0.02)]),
)
train_dataloader = dict(sampler=dict(type='RepeatAugSampler', num_repeats=3))
optim_wrapper = dict(optimizer=dict(lr=1e-3), paramwise_cfg=dict(layer_decay_rate=1.0))
param_scheduler = [
    dict(type='mim_mm.WarmupLR', start_factor=1e-3, end=5, like='timm'),
    dict(type='mim_mm.HalfCosineLR', eta_min=1e-5, begin=5, like='timm'),
]
train_cfg = dict(max_epochs=150)
