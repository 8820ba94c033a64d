"""Linear probe of I-JEPA, ViT-L/16, on ImageNet-1k: the mean of the patch tokens (Assran et al., CVPR 2023).

    tools/dist_train.sh configs/linear/vitl_ijepa_50e.py 8 --cfg-options init=CKPT

Published: I-JEPA ViT-L/16 600 epochs 77.5 (as quoted by EMAE).
As vith_ijepa_50e.py, which says what of it is the paper's, but for the size. The last four blocks joined:
model.blocks=[-4,-3,-2,-1] model.head.in_channels=4096 model.neck.input_features=4096.
Cost: not measured here.
"""

_base_ = ['./vitb_ijepa_50e.py']

model = dict(backbone=dict(arch='large'), neck=dict(input_features=1024), head=dict(in_channels=1024))
