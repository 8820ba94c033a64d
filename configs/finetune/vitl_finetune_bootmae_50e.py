"""Fine-tuning of BootMAE ViT-L/16 on ImageNet-1k (Dong et al., ECCV 2022, and its script).

    tools/dist_train.sh configs/finetune/vitl_finetune_bootmae_50e.py 8 --cfg-options init=CKPT

Published: 85.9 after 800 epochs of pretraining. As vitb_finetune_bootmae_100e.py but lr 1.5e-3 for 1024 images, layer
decay 0.75, 50 epochs, warm-up 5.
Batch 8 x 128; less memory: train_dataloader.batch_size=32 optim_wrapper.accumulative_counts=4.
Cost: not measured here.
"""

_base_ = ['./vitb_finetune_bootmae_100e.py']

model = dict(backbone=dict(arch='large'), head=dict(in_channels=1024))
train_dataloader = dict(batch_size=128)
optim_wrapper = dict(optimizer=dict(lr=1.5e-3), paramwise_cfg=dict(layer_decay_rate=0.75))
param_scheduler = [
    dict(type='mim_mm.WarmupLR', end=5, convert_to_iter_based=True, like='beit'),
    dict(type='mim_mm.HalfCosineLR', eta_min_ratio=1e-6 / 1.5e-3, begin=5, convert_to_iter_based=True, like='beit'),
]
train_cfg = dict(max_epochs=50)
auto_scale_lr = dict(base_batch_size=1024)
