# MSN, ViT-S/16: 30 of 196 patches of the large anchor dropped, the same in all images of a batch; 1024 prototypes.
model = dict(
    _scope_='mim_mm',
    type='MSN',
    backbone=dict(type='mmpretrain.VisionTransformer', arch='deit-small', img_size=224, patch_size=16, out_type='raw'),
    masker=dict(type='RandomMasking', ratio=0.15, shared=True),
    prototypes=1024,
    hidden_dims=2048,
    out_dims=256,
    temperature=0.1,
    sharpen=0.25,
    sinkhorn=3,
    memax_weight=1.0,
    momentum=dict(start=0.996, end=1.0, shape='linear', stretch=1.25),
    data_preprocessor=dict(
        type='mmpretrain.SelfSupDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        non_blocking=True,
    ),
)
