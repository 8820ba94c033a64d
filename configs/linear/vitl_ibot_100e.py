"""Linear probe of ViT-L/16 on ImageNet-1k: iBOT's sweep of 45 rates, class and mean patch token (Zhou et al. 2022).

    tools/dist_train.sh configs/linear/vitl_ibot_100e.py 8 --cfg-options init=CKPT

Published: iBOT ViT-L/16 81.0 (81.3 with random masking).
As vitb_ibot_100e.py but for the size: 2048 values.
Cost: not measured here.
"""

_base_ = ['./vitb_ibot_100e.py']

model = dict(backbone=dict(arch='large'))
