"""A linear layer on a frozen ViT-S/16, ADE20K at 512 px: iBOT's dense linear probe (Zhou et al., ICLR 2022).

    tools/dist_train.sh configs/seg/linear_vits_160k.py 8 --cfg-options init=CKPT

Published: none. As linear_vitb_160k.py; its rate, 8e-4, was chosen for ViT-B.
Cost: not measured here.
"""

_base_ = ['./linear_vitb_160k.py']

model = dict(backbone=dict(arch='deit-small'), decode_head=dict(in_channels=[384] * 4, channels=1536))
