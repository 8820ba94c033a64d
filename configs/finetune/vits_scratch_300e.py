"""ViT-S/16 on ImageNet-1k from random weights: DeiT's recipe (Touvron et al., ICML 2021), since MAE has none for it.

    tools/dist_train.sh configs/finetune/vits_scratch_300e.py 8

Published: 79.9 (DeiT-S; the row "Supervised" of EMAE's table). Class token after the final norm, AdamW, lr 5e-4 x batch
/ 512, wd 0.05 (none for one-dimensional tensors, class token, positions), no layer decay, drop path 0.1, 300 epochs,
warm-up 5 from 1e-6, cosine to 1e-5 (once an epoch, as timm sets it), three views of an image in a batch, RandAugment
9/0.5, erasing 0.25, mixup 0.8, cutmix 1.0, smoothing 0.1, no clipping. DeiT's code keeps an average of the weights and
measures the trained ones; here there is no average. Linear layers, class token and positions truncated normal (0.02)
outside of the MLPs, which are Xavier as mmpretrain has them (DeiT: truncated normal throughout; class token here zero).
Batch 8 x 128.
Cost: not measured here.
"""

_base_ = ['./vits_finetune_mocov3_300e.py']

model = dict(
    backbone=dict(arch='deit-small'),
    init_cfg=[
        dict(type='TruncNormal', layer='Linear', std=0.02),
        dict(type='Constant', layer='LayerNorm', val=1.0, bias=0.0),
    ],
)
