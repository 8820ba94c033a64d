"""Linear probe of ViT-S/16 on ImageNet-1k: MAE's protocol (He et al. 2022, appendix A.1, table 10), a size it lacks.

    tools/dist_train.sh configs/linear/vits_linear_90e.py 8 --cfg-options init=CKPT

Published: none for ViT-S with this protocol (iBOT's 77.9 and DINO's 77.0 are from their own probes on four blocks).
As vitb_linear_90e.py in everything but the size; arch deit-small is ViT-S with 6 heads (MoCo v3's has 12).
Cost: not measured here.
"""

_base_ = ['./vitb_linear_90e.py']

model = dict(backbone=dict(arch='deit-small'), neck=dict(input_features=384), head=dict(in_channels=384))
