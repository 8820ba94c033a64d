"""BEiT, ViT-B/16, 300 epochs of ImageNet-1k (Bao et al., ICLR 2022).

    tools/dist_train.sh configs/beit/beit_vitb_300e.py 8 --cfg-options model.tokenizer_checkpoint=dalle_encoder.pth

Published: fine-tune 83.1 (mmpretrain, 300 epochs); 800 epochs: linear 56.7, fine-tune 83.2 (as quoted by EMAE).
Needs the weights of DALL-E's encoder in mmpretrain's format; they are trained on other data than ImageNet.
Batch 2048 = 8 x 256. Other batches: --auto-scale-lr. Checkpoints hold the tokenizer too (54 M weights).
Cost: 4.3 h on 8 H100 at half of their bf16 peak, by FLOPs (160 GFLOP an image, 52 in the tokenizer); not measured.
"""

_base_ = [
    '../_base_/models/beit_vit.py',
    '../_base_/datasets/imagenet_two_views.py',
    '../_base_/schedules/beit_pretrain.py',
    '../_base_/default_runtime.py',
]
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='mmpretrain.ColorJitter', brightness=0.4, contrast=0.4, saturation=0.4, hue=0.0),
    dict(type='mmpretrain.RandomFlip', prob=0.5),
    dict(
        type='TwoSizeRandomResizedCrop',
        scale=224,
        second_scale=112,
        interpolation='bicubic',
        second_interpolation='lanczos',
    ),
    dict(type='mmpretrain.PackInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
default_hooks = dict(checkpoint=dict(interval=20))
