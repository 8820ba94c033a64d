# data2vec 2.0, ViT-B/16: 16 copies of an image that show 39 of 196 patches each, under one pass of a teacher that sees
# them all; targets are what the MLPs of its last ten blocks add. Norms behind the residuals.
model = dict(
    _scope_='mim_mm',
    type='data2vec2',
    backbone=dict(type='PostNormViT', arch='base', img_size=224, patch_size=16, out_type='raw'),
    masker=dict(type='InverseBlockMasking', ratio=0.8, num_parts=16, block=3, adjust=0.07),
    decoder=dict(embed_dims=768, depth=6, kernel=3, groups=16),
    target_blocks=[-10, -9, -8, -7, -6, -5, -4, -3, -2, -1],
    momentum=dict(start=0.9998, end=0.99999, steps=100_000),
    cls_weight=2.56,
    noise_std=0.01,
    data_preprocessor=dict(
        type='ImgDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        non_blocking=True,
    ),
)
