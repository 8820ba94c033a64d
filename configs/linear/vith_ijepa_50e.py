"""Linear probe of I-JEPA, ViT-H/14, on ImageNet-1k: the mean of the patch tokens (Assran et al., CVPR 2023).

    tools/dist_train.sh configs/linear/vith_ijepa_50e.py 8 --cfg-options init=CKPT

Published: I-JEPA ViT-H/14 300 epochs 79.3 (from memory).
The release has no evaluation. From memory of the paper, and not checked: the teacher, the mean of the patch tokens of
the last block after the final norm (or of the last four, joined: model.blocks=[-4,-3,-2,-1] model.head.in_channels=5120
model.neck.input_features=5120), a BatchNorm or none in front of the linear layer, the best of these. Optimisation is
MAE's (vith_linear_50e.py), which is not theirs. For encoders of configs/ijepa the teacher is read; for the release's
file: custom_hooks.0.prefix=null.
Cost: not measured here.
"""

_base_ = ['./vitb_ijepa_50e.py']

model = dict(backbone=dict(arch='huge', patch_size=14), neck=dict(input_features=1280), head=dict(in_channels=1280))
