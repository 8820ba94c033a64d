"""Linear probe of ViT-S/16 with 12 heads on ImageNet-1k: MoCo v3's protocol and architecture (Chen, Xie and He 2021).

    tools/dist_train.sh configs/linear/vits_mocov3_90e.py 8 --cfg-options init=CKPT

Published: MoCo v3 ViT-S 300 epochs 73.2 (mmpretrain's config of this protocol 73.6).
As vitb_mocov3_90e.py but for the size. MoCo v3's ViT-S has 12 heads where everybody else's (arch deit-small) has 6; the
weights have the same shapes, load without complaint and compute something else. For an encoder with 6 heads:
model.backbone.arch=deit-small.
Cost: not measured here.
"""

_base_ = ['./vitb_mocov3_90e.py']

arch = dict(_delete_=True, embed_dims=384, num_layers=12, num_heads=12, feedforward_channels=1536)
model = dict(backbone=dict(arch=arch), head=dict(in_channels=384))
