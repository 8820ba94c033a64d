"""Demo, MAE pretraining on unlabelled digits, for tools/transfer.py --compare: EMAE's recipe with one part, not four.

    python tools/train.py configs/demo/pretrain_mae.py

An image is encoded once an iteration (EMAE: four times), so equal epochs are a quarter of the views (docs/compare.md).
"""

_base_ = './pretrain_emae.py'
model = dict(
    _delete_=True,
    _scope_='mim_mm',
    type='MAE',
    data_preprocessor=dict(type='ImgDataPreprocessor', mean=[110.0] * 3, std=[64.0] * 3),
    backbone=dict(
        type='mmpretrain.VisionTransformer',
        arch=dict(embed_dims=128, num_layers=4, num_heads=4, feedforward_channels=512),
        img_size=32,
        patch_size=8,
        out_type='raw',
    ),
    masker=dict(type='RandomMasking', ratio=0.75),
    decoder=dict(type='MAEDecoder', embed_dims=64, depth=2, num_heads=4),
    norm_eps=0.02,
)
custom_hooks = []
