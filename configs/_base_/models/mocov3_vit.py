# MoCo v3, ViT-B/16: projector of three layers and predictor of two, 4096 wide, 256 out; patch embedding and positions
# keep what they start as.
model = dict(
    _scope_='mim_mm',
    type='MoCoV3',
    backbone=dict(type='mmpretrain.VisionTransformer', arch='base', img_size=224, patch_size=16, out_type='raw'),
    hidden_dims=4096,
    out_dims=256,
    temperature=0.2,
    momentum=dict(start=0.99, end=1.0),
    data_preprocessor=dict(
        type='mmpretrain.SelfSupDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        non_blocking=True,
    ),
)
