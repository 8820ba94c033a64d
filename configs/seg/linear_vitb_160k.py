"""A linear layer on a frozen ViT-B/16, ADE20K at 512 px: the dense linear probe of iBOT (Zhou et al., ICLR 2022).

    tools/dist_train.sh configs/seg/linear_vitb_160k.py 8 --cfg-options init=CKPT

Published, iBOT ViT-B: mIoU 38.3. One 1 x 1 convolution on blocks 4, 6, 8, 12, each after the final norm and joined; no
norm, no dropout; AdamW 8e-4, wd 0.05, batch 16 = 8 x 2, 160,000 iterations, warm-up 1500, then a straight line to zero.
The encoder runs forward only: hours where UperNet takes days. Its file must hold a final norm. For an encoder of
configs/ibot: custom_hooks.0.prefix=teacher.backbone.
Differences: bf16 instead of fp16.
Cost: not measured here.
"""

_base_ = ['./upernet_vitb_160k.py']

model = dict(
    type='mim_mm.FrozenSegmentor',
    blocks=(3, 5, 7, 11),
    norm=True,
    backbone=dict(
        _delete_=True, type='mmpretrain.VisionTransformer', arch='base', img_size=512, patch_size=16, final_norm=True
    ),
    neck=None,
    decode_head=dict(
        _delete_=True,
        type='mim_mm.FullPrecisionFCNHead',
        in_channels=[768] * 4,
        in_index=[0, 1, 2, 3],
        input_transform='resize_concat',
        channels=3072,
        num_convs=0,
        concat_input=False,
        dropout_ratio=0,
        num_classes=150,
        align_corners=False,
        loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0),
    ),
    auxiliary_head=None,
)
optim_wrapper = dict(
    optimizer=dict(lr=8e-4),
    paramwise_cfg=dict(layer_decay_rate=1.0, norm_decay_mult=None, bias_decay_mult=None, flat_decay_mult=None),
)
custom_hooks = [
    dict(type='mim_mm.LoadPretrainedHook', prefix='backbone.', target='backbone', min_loaded=0.95, complete=True),
    dict(type='mim_mm.MaskClassesHook'),
]
