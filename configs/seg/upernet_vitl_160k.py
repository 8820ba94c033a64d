"""UperNet with a ViT-L/16 on ADE20K, 160,000 iterations at 512 px: the form of MAE (He et al., CVPR 2022).

    tools/dist_train.sh configs/seg/upernet_vitl_160k.py 8 --cfg-options init=CKPT

Published, MAE ViT-L 1600 epochs: mIoU 53.6, with rates that it does not print. Rate, layer decay and drop path are
those of iBOT's release for ViT-L: 2e-5, 0.95, 0.2; nobody published what they give MAE. Blocks 8, 12, 16, 24. All else
as upernet_vitb_160k.py.
Cost: not measured here.
"""

_base_ = ['./upernet_vitb_160k.py']

model = dict(
    backbone=dict(arch='large', drop_path_rate=0.2, out_indices=(7, 11, 15, 23)),
    neck=dict(embed_dim=1024),
    decode_head=dict(in_channels=[1024] * 4, channels=1024),
    auxiliary_head=dict(in_channels=1024),
)
optim_wrapper = dict(optimizer=dict(lr=2e-5), paramwise_cfg=dict(layer_decay_rate=0.95))
