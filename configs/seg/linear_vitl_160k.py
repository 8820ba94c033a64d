"""A linear layer on a frozen ViT-L/16, ADE20K at 512 px: iBOT's dense linear probe (Zhou et al., ICLR 2022).

    tools/dist_train.sh configs/seg/linear_vitl_160k.py 8 --cfg-options init=CKPT

Published: none. As linear_vitb_160k.py on blocks 8, 12, 16, 24; its rate, 8e-4, was chosen for ViT-B.
Cost: not measured here.
"""

_base_ = ['./linear_vitb_160k.py']

model = dict(
    blocks=(7, 11, 15, 23), backbone=dict(arch='large'), decode_head=dict(in_channels=[1024] * 4, channels=4096)
)
