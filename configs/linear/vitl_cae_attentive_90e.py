"""Attentive probe of CAE, ViT-L/16, on ImageNet-1k (Chen et al., IJCV 2023, tools/run_attentive.py).

    tools/dist_train.sh configs/linear/vitl_cae_attentive_90e.py 8 --cfg-options init=CKPT

Published: CAE ViT-L 1600 epochs 81.2; MAE ViT-L 1600 in the same table 78.8.
As vitb_cae_attentive_90e.py but for the size.
Cost: not measured here.
"""

_base_ = ['./vitb_cae_attentive_90e.py']

model = dict(backbone=dict(arch='large'), neck=dict(embed_dims=1024, num_heads=16), head=dict(in_channels=1024))
