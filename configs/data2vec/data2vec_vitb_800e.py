"""data2vec, ViT-B/16, 800 epochs of ImageNet-1k (Baevski et al., ICML 2022; its official vision code).

    tools/dist_train.sh configs/data2vec/data2vec_vitb_800e.py 8

Published: fine-tune 84.2, of the student.
AdamW, lr 2e-3 for 2048 images, warm-up 10, cosine to 1e-5, decay 0.05, gradients clipped at 3; drop path 0.25, dropout
of attention 0.05, layer scale 1e-4; the teacher's momentum is 0.9998 throughout. Colours always, without hue; bicubic.
Batch 2048 = 8 x 256 (the release: 16 x 128). Other batches: --auto-scale-lr.
Cost: 10.1 h on 8 H100 at half of their bf16 peak, by FLOPs (141 GFLOP an image, with the teacher's pass); not measured.
"""

_base_ = [
    '../_base_/models/data2vec_vit.py',
    '../_base_/datasets/imagenet_pretrain.py',
    '../_base_/schedules/beit_pretrain.py',
    '../_base_/default_runtime.py',
]
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='mmpretrain.ColorJitter', brightness=0.4, contrast=0.4, saturation=0.4, hue=0.0),
    dict(type='FastRandomFlip', prob=0.5),
    dict(type='FastRandomResizedCrop', scale=224, crop_ratio_range=(0.08, 1.0), interpolation='bicubic'),
    dict(type='PackImage'),
]
train_dataloader = dict(batch_size=256, dataset=dict(pipeline=train_pipeline))
optim_wrapper = dict(optimizer=dict(lr=2e-3))
train_cfg = dict(max_epochs=800)
custom_hooks = [
    dict(type='MaskDiagnosticsHook', interval=500),
    dict(type='CollapseHook', interval=100),
]
default_hooks = dict(checkpoint=dict(interval=20))
