"""UperNet with iBOT's ViT-S/16 on ADE20K, 160,000 iterations at 512 px (Zhou et al., ICLR 2022; its release).

    tools/dist_train.sh configs/seg/upernet_vits_ibot_160k.py 8 --cfg-options init=CKPT

Published: mIoU 45.4. As upernet_vitb_ibot_160k.py but lr 3e-5, layer decay 0.9.
Cost: not measured here.
"""

_base_ = ['./upernet_vitb_ibot_160k.py']

model = dict(
    backbone=dict(arch='deit-small'),
    neck=dict(embed_dim=384),
    decode_head=dict(in_channels=[384] * 4, channels=384),
    auxiliary_head=dict(in_channels=384),
)
optim_wrapper = dict(optimizer=dict(lr=3e-5), paramwise_cfg=dict(layer_decay_rate=0.9))
