"""Fine-tuning of ConvNeXt-T on ImageNet-1k, for encoders of configs/convnets: the settings of ConvNeXt V2-T.

    tools/dist_train.sh configs/finetune/convnextt_finetune_300e.py 8 --cfg-options init=CKPT

Published: nothing for this encoder. As ConvNeXt V2's release fine-tunes its V2-T (Woo et al., CVPR 2023, TRAINING.md):
AdamW, lr 3.2e-3 for 1024 images, wd 0.05 (none for one-dimensional tensors), drop path 0.2, 300 epochs, warm-up 40,
RandAugment 9/0.5, erasing 0.25, mixup 0.8, cutmix 1.0, smoothing 0.1; the moving average of the weights (0.9999) is
evaluated; bf16. Cosine to 1e-6 from memory. Batch 8 x 128. Other batches: --auto-scale-lr. Other data:
IMAGENET_ROOT=DIR and model.head.num_classes=N.
Difference: layer decay 0.7 in the eight steps that mmpretrain knows of ConvNeXt-T, which it has for SparK's V2-T; the
release has 0.9 over each of the 18 blocks.
Cost: not measured here.
"""

_base_ = ['./vitb_finetune_100e.py']
epochs = 300

model = dict(
    backbone=dict(_delete_=True, type='ConvNeXt', arch='tiny', drop_path_rate=0.2),
    head=dict(in_channels=768, init_cfg=dict(_delete_=True, type='TruncNormal', layer='Linear', std=0.02)),
)
optim_wrapper = dict(optimizer=dict(lr=3.2e-3), paramwise_cfg=dict(layer_decay_rate=0.7))
param_scheduler = [
    dict(type='mim_mm.WarmupLR', end=40, convert_to_iter_based=True),
    dict(type='mim_mm.HalfCosineLR', eta_min_ratio=1e-6 / 3.2e-3, begin=40, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=epochs)
custom_hooks = [
    dict(type='mim_mm.LoadPretrainedHook', checkpoint=None, prefix='backbone.', target='backbone', min_loaded=0.95),
    dict(type='mim_mm.ClassCountHook'),
    dict(type='EMAHook', momentum=1e-4),
]
