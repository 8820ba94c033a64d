"""Linear probe of BootMAE, ViT-B/16, on ImageNet-1k: mean patch token after block 10 of 12 (Dong et al. 2022).

    tools/dist_train.sh configs/linear/vitb_bootmae_90e.py 8 --cfg-options init=CKPT

Published: BootMAE ViT-B 800 epochs 66.1 (block 10).
MAE's probe on the mean of the patch tokens (vitb_linear_mean_90e.py) of an encoder cut off after ten blocks; the load
report lists the last two as unused (cut_depth). Mean and spread 0.5, as BootMAE's pretraining: for other encoders set
data_preprocessor.mean and .std. BootMAE reached 16384 images with 8 x 1024 and two accumulated steps, so that its
BatchNorm saw 1024: train_dataloader.batch_size=1024 optim_wrapper.accumulative_counts=2.
Cost: ten twelfths of the probe of the last block.
"""

_base_ = ['./vitb_linear_mean_90e.py']

data_preprocessor = dict(mean=[127.5] * 3, std=[127.5] * 3)
arch = dict(_delete_=True, embed_dims=768, num_layers=10, num_heads=12, feedforward_channels=3072)
model = dict(backbone=dict(arch=arch, frozen_stages=10))
custom_hooks = [
    dict(type='mim_mm.LoadPretrainedHook', checkpoint=None, target='backbone', cut_depth=True),
    dict(type='mim_mm.ClassCountHook'),
    dict(type='SyncBuffersHook'),
]
