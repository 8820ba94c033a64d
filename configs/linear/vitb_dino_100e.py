"""Linear probe of ViT-B/16 on ImageNet-1k: DINO's protocol, class token and mean patch token (Caron et al. 2021).

    tools/dist_train.sh configs/linear/vitb_dino_100e.py 8 --cfg-options init=CKPT

Published: DINO ViT-B/16 78.2 (400 epochs; k-NN 76.1).
As vits_dino_100e.py but for the feature: class token and mean of the patch tokens of the last block, after the final
norm: 1536 values. DINO stores the two interleaved value by value, here one stands behind the other; that is the same
probe, but released linear weights need the permutation of docs/probes.md.
Cost: not measured here.
"""

_base_ = [
    '../_base_/models/vitb_frozen_probe.py',
    '../_base_/datasets/imagenet_linear_bilinear.py',
    '../_base_/schedules/linear_sgd.py',
    '../_base_/downstream_runtime.py',
]
default_scope = 'mmpretrain'

model = dict(pool='cls_mean', head=dict(in_channels=2 * 768))
optim_wrapper = dict(optimizer=dict(lr=0.001 * 1024 / 256))
