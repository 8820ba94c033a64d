"""Fine-tuning of BootMAE ViT-B/16 on ImageNet-1k, for encoders of configs/bootmae (Dong et al., ECCV 2022; its script).

    tools/dist_train.sh configs/finetune/vitb_finetune_bootmae_100e.py 8 --cfg-options init=CKPT

Published: 84.2 after 800 epochs of pretraining. lr 5e-3 for 2048 images, layer decay 0.6, drop path 0.1, 100 epochs,
warm-up 20. The student's encoder; sine-cosine positions stay fixed, no relative ones, no layer scale; the mean of the
patch tokens, a fresh norm. mean = std = 0.5, as pretraining. The release also evaluates an average of the weights
(0.9998); this recipe has none.
Batch 8 x 256; less memory: train_dataloader.batch_size=64 optim_wrapper.accumulative_counts=4.
Cost: not measured here.
"""

_base_ = [
    '../_base_/models/beitb_finetune.py',
    '../_base_/datasets/imagenet_finetune_half.py',
    '../_base_/schedules/finetune_adamw.py',
]
default_scope = 'mmpretrain'

model = dict(backbone=dict(use_abs_pos_emb=True, use_rel_pos_bias=False, layer_scale_init_value=0))
train_dataloader = dict(batch_size=256)
val_dataloader = dict(batch_size=128)
optim_wrapper = dict(
    optimizer=dict(lr=5e-3),
    paramwise_cfg=dict(layer_decay_rate=0.6, custom_keys={'pos_embed': dict(lr_mult=0.0, decay_mult=0.0)}),
)
param_scheduler = [
    dict(type='mim_mm.WarmupLR', end=20, convert_to_iter_based=True, like='beit'),
    dict(type='mim_mm.HalfCosineLR', eta_min_ratio=1e-6 / 5e-3, begin=20, convert_to_iter_based=True, like='beit'),
]
train_cfg = dict(by_epoch=True, max_epochs=100, val_interval=1)
auto_scale_lr = dict(base_batch_size=2048)
