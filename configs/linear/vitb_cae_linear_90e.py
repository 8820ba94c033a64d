"""Linear probe of CAE, ViT-B/16, on ImageNet-1k (Chen et al., IJCV 2023): MAE's protocol on CAE's encoder.

    tools/dist_train.sh configs/linear/vitb_cae_linear_90e.py 8 --cfg-options init=CKPT

Published: CAE ViT-B 300 / 800 / 1600 epochs 64.5 / 68.9 / 70.3 (MAE 1600 in the same table 67.8).
As vitb_linear_90e.py; the backbone has CAE's layer scale, loaded like everything else. Encoders of configs/cae and
CAE's released files both load (their query and value biases are joined); one without layer scale is refused.
Cost: as MAE's probe.
"""

_base_ = ['./vitb_linear_90e.py']

model = dict(backbone=dict(layer_scale_init_value=0.1))
custom_hooks = [
    dict(type='mim_mm.LoadPretrainedHook', checkpoint=None, prefix='backbone.', target='backbone', complete=True),
    dict(type='mim_mm.ClassCountHook'),
    dict(type='SyncBuffersHook'),
]
