"""Linear probe of BootMAE, ViT-L/16, on ImageNet-1k: mean patch token after block 18 of 24 (Dong et al. 2022).

    tools/dist_train.sh configs/linear/vitl_bootmae_50e.py 8 --cfg-options init=CKPT

Published: BootMAE ViT-L 800 epochs 77.1 (block 18).
As vitb_bootmae_90e.py but for the size, 50 epochs and lr 0.07 x batch / 256.
Cost: not measured here.
"""

_base_ = ['./vitb_bootmae_90e.py']

arch = dict(embed_dims=1024, num_layers=18, num_heads=16, feedforward_channels=4096)
model = dict(backbone=dict(arch=arch, frozen_stages=18), neck=dict(input_features=1024), head=dict(in_channels=1024))
optim_wrapper = dict(optimizer=dict(lr=0.07 * 16384 / 256))
train_cfg = dict(max_epochs=50)
