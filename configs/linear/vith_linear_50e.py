"""Linear probe of ViT-H/14 on ImageNet-1k: MAE's protocol (He et al. 2022, appendix A.1, table 10), 50 epochs.

    tools/dist_train.sh configs/linear/vith_linear_50e.py 8 --cfg-options init=CKPT

Published: MAE ViT-H 1600 epochs 76.6 (77.2 with MAE's PyTorch release).
As vitl_linear_50e.py but for the size and the patch of 14. Less memory: a smaller train_dataloader.batch_size with
optim_wrapper.accumulative_counts; the BatchNorm's statistics are then those of the smaller batch, as in MAE's code.
Cost: not measured here.
"""

_base_ = ['./vitl_linear_50e.py']

model = dict(
    backbone=dict(arch='huge', patch_size=14, frozen_stages=32),
    neck=dict(input_features=1280),
    head=dict(in_channels=1280),
)
