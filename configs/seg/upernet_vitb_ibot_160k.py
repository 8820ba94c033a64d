"""UperNet with iBOT's ViT-B/16 on ADE20K, 160,000 iterations at 512 px (Zhou et al., ICLR 2022; its release).

    tools/dist_train.sh configs/seg/upernet_vitb_ibot_160k.py 8 --cfg-options init=CKPT

Published: mIoU 50.0. As upernet_vitb_160k.py but lr 8e-5; a plain ViT without relative positions and layer scale, whose
four maps go through its final norm. For an encoder of configs/ibot: custom_hooks.0.prefix=teacher.backbone.
Cost: not measured here.
"""

_base_ = ['./upernet_vitb_160k.py']

model = dict(
    backbone=dict(
        _delete_=True,
        type='mim_mm.NormedMaps',
        arch='base',
        img_size=512,
        patch_size=16,
        drop_path_rate=0.1,
        out_indices=(3, 5, 7, 11),
    )
)
optim_wrapper = dict(optimizer=dict(lr=8e-5))
