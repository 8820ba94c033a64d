"""Linear probe of ViT-B/16 on ImageNet-1k: MoCo v3's protocol (Chen, Xie and He 2021, CONFIG.md).

    tools/dist_train.sh configs/linear/vitb_mocov3_90e.py 8 --cfg-options init=CKPT

Published: MoCo v3 ViT-B 300 epochs 76.7 (mmpretrain's config of this protocol 76.9).
Class token after the final norm, no BatchNorm; SGD, lr 12 for 1024 images, momentum 0.9, no decay, 90 epochs, no
warm-up, cosine set once an epoch; crops and test images resized bilinearly; fp32. Batch 8 x 128. Other batches:
--auto-scale-lr. Other data: IMAGENET_ROOT=DIR and model.head.num_classes=N. Takes MoCo v3's file as it is released.
Differences from the original: none known.
Cost: not measured here.
"""

_base_ = [
    '../_base_/models/vitb_frozen_probe.py',
    '../_base_/datasets/imagenet_linear_bilinear.py',
    '../_base_/schedules/linear_sgd.py',
    '../_base_/downstream_runtime.py',
]
default_scope = 'mmpretrain'

test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='ResizeEdge', scale=256, edge='short', backend='pillow', interpolation='bilinear'),
    dict(type='CenterCrop', crop_size=224),
    dict(type='PackInputs'),
]
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
train_cfg = dict(max_epochs=90)
