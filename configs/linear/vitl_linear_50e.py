"""Linear probe of ViT-L/16 on ImageNet-1k: MAE's protocol (He et al. 2022, appendix A.1, table 10), 50 epochs.

    tools/dist_train.sh configs/linear/vitl_linear_50e.py 8 --cfg-options init=CKPT

Published: MAE ViT-L 1600 epochs 75.8 (76.0 with MAE's PyTorch release; mmpretrain's probe 75.5, 90 epochs).
As vitb_linear_90e.py but for the size and the 50 epochs that MAE's notes call enough for L and H;
train_cfg.max_epochs=90 is the protocol's number.
Cost: not measured here.
"""

_base_ = ['./vitb_linear_90e.py']

model = dict(backbone=dict(arch='large', frozen_stages=24), neck=dict(input_features=1024), head=dict(in_channels=1024))
train_cfg = dict(max_epochs=50)
