# I-JEPA: four target blocks predicted from one context; no class token, the predictor as many heads as the encoder.
model = dict(
    _scope_='mim_mm',
    type='IJEPA',
    backbone=dict(
        type='mmpretrain.VisionTransformer',
        arch='huge',
        img_size=224,
        patch_size=14,
        with_cls_token=False,
        out_type='raw',
    ),
    masker=dict(type='MultiBlockMasking'),
    predictor=dict(embed_dims=384, depth=12),
    momentum=dict(start=0.996, end=1.0, shape='linear'),
    data_preprocessor=dict(
        type='ImgDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        non_blocking=True,
    ),
)
