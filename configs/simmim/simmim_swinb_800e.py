"""SimMIM, Swin-B (windows of 6) at 192 px, 800 epochs of ImageNet-1k (Xie et al., CVPR 2022).

    tools/dist_train.sh configs/simmim/simmim_swinb_800e.py 8

Published: fine-tune 84.0 at 224 px (SimMIM release).
Batch 2048 = 8 x 256. Other batches: --auto-scale-lr.
Cost: 4.9 h on 8 H100 at half of their bf16 peak, by FLOPs (68 GFLOP an image); not measured.
"""

_base_ = [
    '../_base_/models/simmim_swin.py',
    '../_base_/datasets/imagenet_simmim.py',
    '../_base_/schedules/simmim_pretrain.py',
    '../_base_/default_runtime.py',
]
train_pipeline = [
    dict(type='LazyLoadImageFromFile'),
    dict(type='FastRandomResizedCrop', scale=192, crop_ratio_range=(0.67, 1.0), interpolation='bilinear'),
    dict(type='FastRandomFlip', prob=0.5),
    dict(type='PackImage'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
default_hooks = dict(checkpoint=dict(interval=20))
