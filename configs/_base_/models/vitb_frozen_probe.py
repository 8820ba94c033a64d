# A linear layer on a frozen ViT-B/16: which blocks, whether each goes through the final norm, and what is pooled.
model = dict(
    type='mim_mm.FrozenProbe',
    backbone=dict(type='mmpretrain.VisionTransformer', arch='base', img_size=224, patch_size=16),
    blocks=[-1],
    norm=True,
    pool='cls',
    head=dict(
        type='mmpretrain.LinearClsHead',
        num_classes=1000,
        in_channels=768,
        loss=dict(type='mmpretrain.CrossEntropyLoss'),
        init_cfg=dict(type='Normal', layer='Linear', std=0.01),
    ),
)
