"""Linear probe of I-JEPA, ViT-B/16, on ImageNet-1k: the mean of the patch tokens (Assran et al., CVPR 2023).

    tools/dist_train.sh configs/linear/vitb_ijepa_50e.py 8 --cfg-options init=CKPT

Published: I-JEPA ViT-B/16 600 epochs 72.9 (as quoted by EMAE).
As vith_ijepa_50e.py, which says what of it is the paper's, but for the size. The last four blocks joined:
model.blocks=[-4,-3,-2,-1] model.head.in_channels=3072 model.neck.input_features=3072.
Cost: not measured here.
"""

_base_ = ['./vitb_linear_90e.py']

model = dict(
    _delete_=True,
    type='mim_mm.FrozenProbe',
    backbone=dict(
        type='mmpretrain.VisionTransformer',
        arch='base',
        img_size=224,
        patch_size=16,
        with_cls_token=False,
        out_type='raw',
    ),
    blocks=[-1],
    norm=True,
    pool='mean',
    neck=dict(type='mmpretrain.ClsBatchNormNeck', input_features=768),
    head=dict(
        type='mmpretrain.LinearClsHead',
        num_classes=1000,
        in_channels=768,
        loss=dict(type='mmpretrain.CrossEntropyLoss'),
        init_cfg=dict(type='Normal', layer='Linear', std=0.01),
    ),
)
train_cfg = dict(max_epochs=50)
custom_hooks = [
    dict(type='mim_mm.LoadPretrainedHook', checkpoint=None, prefix='teacher.', target='backbone', complete=True),
    dict(type='mim_mm.ClassCountHook'),
    dict(type='SyncBuffersHook'),
]
