"""Linear probe of CAE, ViT-L/16, on ImageNet-1k (Chen et al., IJCV 2023): MAE's protocol on CAE's encoder.

    tools/dist_train.sh configs/linear/vitl_cae_linear_90e.py 8 --cfg-options init=CKPT

Published: CAE ViT-L 1600 epochs 77.8.
As vitb_cae_linear_90e.py but for the size.
Cost: not measured here.
"""

_base_ = ['./vitb_cae_linear_90e.py']

model = dict(backbone=dict(arch='large', frozen_stages=24), neck=dict(input_features=1024), head=dict(in_channels=1024))
