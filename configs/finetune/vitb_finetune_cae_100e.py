"""Fine-tuning of CAE ViT-B/16 on ImageNet-1k, for encoders of configs/cae (Chen et al., IJCV 2023, and its script).

    tools/dist_train.sh configs/finetune/vitb_finetune_cae_100e.py 8 --cfg-options init=CKPT

Published: 83.6 / 83.8 / 83.9 after 300 / 800 / 1600 epochs of pretraining. lr 8e-3 for 4096 images, layer decay 0.65,
drop path 0.1, 100 epochs, warm-up 5, layer scale 0.1. The sine-cosine positions of the checkpoint stay fixed, tables
of relative positions are new and start at zero, the norm after the mean of the patches starts from the pretrained
final norm (mmpretrain: fresh). ImageNet's mean.
Batch 8 x 512; less memory: train_dataloader.batch_size=128 optim_wrapper.accumulative_counts=4.
Cost: not measured here.
"""

_base_ = [
    '../_base_/models/beitb_finetune.py',
    '../_base_/datasets/imagenet_finetune.py',
    '../_base_/schedules/finetune_adamw.py',
]
default_scope = 'mmpretrain'

model = dict(backbone=dict(use_abs_pos_emb=True))
train_dataloader = dict(batch_size=512)
val_dataloader = dict(batch_size=128)
optim_wrapper = dict(
    optimizer=dict(lr=8e-3), paramwise_cfg=dict(custom_keys={'pos_embed': dict(lr_mult=0.0, decay_mult=0.0)})
)
param_scheduler = [
    dict(type='mim_mm.WarmupLR', end=5, convert_to_iter_based=True, like='beit'),
    dict(type='mim_mm.HalfCosineLR', eta_min_ratio=1e-6 / 8e-3, begin=5, convert_to_iter_based=True, like='beit'),
]
train_cfg = dict(by_epoch=True, max_epochs=100, val_interval=1)
auto_scale_lr = dict(base_batch_size=4096)
custom_hooks = [
    dict(type='mim_mm.LoadPretrainedHook', checkpoint=None, target='backbone', rename={'ln1.': 'ln2.'}),
    dict(type='mim_mm.ClassCountHook'),
]
