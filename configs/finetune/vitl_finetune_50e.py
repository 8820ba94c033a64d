"""Fine-tuning of ViT-L/16 on ImageNet-1k: MAE's protocol (He et al. 2022, appendix A.1; rates of MAE's FINETUNE.md).

    tools/dist_train.sh configs/finetune/vitl_finetune_50e.py 8 --cfg-options init=CKPT

Published: MAE ViT-L 1600 epochs 85.9 (85.95; four seeds 85.87 +- 0.07; mmpretrain's recipe 85.7). As ViT-B
(vitb_finetune_100e.py) but lr 4e-3 for 1024 images, layer decay 0.75, drop path 0.2, 50 epochs.
Batch 8 x 128; less memory: train_dataloader.batch_size=32 optim_wrapper.accumulative_counts=4.
Cost: not measured here.
"""

_base_ = ['./vitb_finetune_100e.py']

model = dict(backbone=dict(arch='large', drop_path_rate=0.2), head=dict(in_channels=1024))
optim_wrapper = dict(optimizer=dict(lr=4e-3), paramwise_cfg=dict(layer_decay_rate=0.75))
param_scheduler = [
    dict(type='mim_mm.WarmupLR', end=5, convert_to_iter_based=True),
    dict(type='mim_mm.HalfCosineLR', eta_min_ratio=1e-6 / 4e-3, begin=5, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=50)
