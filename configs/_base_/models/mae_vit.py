# MAE, ViT-B/16: 75 % of the patches hidden at random, decoder of 8 blocks of width 512.
model = dict(
    _scope_='mim_mm',
    type='MAE',
    backbone=dict(type='mmpretrain.VisionTransformer', arch='base', img_size=224, patch_size=16, out_type='raw'),
    masker=dict(type='RandomMasking', ratio=0.75),
    decoder=dict(type='MAEDecoder', embed_dims=512, depth=8, num_heads=16),
    norm_pix=True,
    data_preprocessor=dict(
        type='ImgDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        non_blocking=True,
    ),
)
