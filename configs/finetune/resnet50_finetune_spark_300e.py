"""Fine-tuning of ResNet-50 on ImageNet-1k: SparK's protocol (Tian et al., ICLR 2023), for encoders of configs/convnets.

    tools/dist_train.sh configs/finetune/resnet50_finetune_spark_300e.py 8 --cfg-options init=CKPT

Published: SparK ResNet-50 80.1 (mmpretrain's run of it). LAMB, lr 0.016 for 2048 images, layer decay 0.7 in eight
steps, wd 0.02 (none for one-dimensional tensors), drop path 0.05, 300 epochs, warm-up 5, cosine to 1e-6, set every
iteration; TrivialAugment, erasing 0.25, mixup 0.1, cutmix 1.0, smoothing 0.1 with a sigmoid for each class;
BatchNorm over all GPUs; bf16. Batch 8 x 256. Other batches: --auto-scale-lr. Other data: IMAGENET_ROOT=DIR and
model.head.num_classes=N.
Differences from the release: no moving average of the weights (0.9999) is evaluated, test images are resized to 256
instead of 236; both as in mmpretrain's recipe, whose rate follows its cosine once an epoch.
Cost: not measured here.
"""

_base_ = ['./vitb_finetune_100e.py']
epochs = 300

# TrivialAugment in the place of RandAugment; torchvision's, on an RGB image of PIL.
trivial_augment = [
    dict(type='NumpyToPIL', to_rgb=True),
    dict(type='torchvision/TrivialAugmentWide', num_magnitude_bins=31, interpolation='bicubic', fill=None),
    dict(type='PILToNumpy', to_bgr=True),
]
train_pipeline = [
    *_base_.train_pipeline[:3],  # noqa: F821
    *trivial_augment,
    *_base_.train_pipeline[4:],  # noqa: F821
]
model = dict(
    backbone=dict(
        _delete_=True,
        type='ResNet',
        depth=50,
        norm_cfg=dict(type='SyncBN', requires_grad=True),
        drop_path_rate=0.05,
    ),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        in_channels=2048,
        loss=dict(_delete_=True, type='LabelSmoothLoss', label_smooth_val=0.1, use_sigmoid=True),
        init_cfg=dict(_delete_=True, type='Normal', layer='Linear', std=0.01),
    ),
    train_cfg=dict(augments=[dict(type='Mixup', alpha=0.1), dict(type='CutMix', alpha=1.0)]),
)
train_dataloader = dict(batch_size=256, dataset=dict(pipeline=train_pipeline))
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='Lamb', lr=0.016, weight_decay=0.02),
    paramwise_cfg=dict(layer_decay_rate=0.7),
)
param_scheduler = [
    dict(type='mim_mm.WarmupLR', end=5, convert_to_iter_based=True),
    dict(type='mim_mm.HalfCosineLR', eta_min_ratio=1e-6 / 0.016, begin=5, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=epochs)
auto_scale_lr = dict(base_batch_size=2048)
