"""Fine-tuning of ViT-B/16 on ImageNet-1k: MAE's protocol (He et al. 2022, appendix A.1, table 9).

    tools/dist_train.sh configs/finetune/vitb_finetune_100e.py 8 --cfg-options init=CKPT

Published: MAE ViT-B 1600 epochs 83.6 (83.57 +- 0.08 over four seeds; mmpretrain's recipe 83.5). Mean of the patch
tokens, then a fresh norm (the pretrained final norm is not used). AdamW, lr 2e-3 for 1024 images, layer decay 0.65,
wd 0.05 (none for one-dimensional tensors, class token, positions), drop path 0.1, 100 epochs, warm-up 5, cosine to 1e-6
(scaled by layer), RandAugment 9/0.5, erasing 0.25, mixup 0.8, cutmix 1.0, smoothing 0.1, bf16.
Batch 8 x 128. Other batches: --auto-scale-lr. Other data: IMAGENET_ROOT=DIR and model.head.num_classes=N.
Cost: not measured here.
"""

_base_ = [
    '../_base_/models/vitb_finetune.py',
    '../_base_/datasets/imagenet_finetune.py',
    '../_base_/schedules/finetune_adamw.py',
]
default_scope = 'mmpretrain'

train_dataloader = dict(batch_size=128)
val_dataloader = dict(batch_size=128)
optim_wrapper = dict(optimizer=dict(lr=2e-3))
param_scheduler = [
    dict(type='mim_mm.WarmupLR', end=5, convert_to_iter_based=True),
    dict(type='mim_mm.HalfCosineLR', eta_min_ratio=1e-6 / 2e-3, begin=5, convert_to_iter_based=True),
]
train_cfg = dict(by_epoch=True, max_epochs=100, val_interval=1)
