# data2vec, ViT-B/16: at most 120 of 196 patches hidden in blocks; targets are the mean of the last six blocks of a
# teacher that sees the whole image. One table of relative positions for all blocks, no absolute ones.
model = dict(
    _scope_='mim_mm',
    type='data2vec',
    backbone=dict(
        type='mmpretrain.BEiTPretrainViT',
        arch='base',
        img_size=224,
        patch_size=16,
        drop_path_rate=0.25,
        layer_scale_init_value=1e-4,
        layer_cfgs=dict(
            attn_cfg=dict(attn_drop_rate=0.05),
            ffn_cfg=dict(add_identity=False, dropout_layer=None),  # drop path once, as released
        ),
    ),
    masker=dict(type='BlockMasking', ratio=120 / 196, fill='none'),
    target_blocks=[-6, -5, -4, -3, -2, -1],
    momentum=0.9998,
    beta=2.0,
    data_preprocessor=dict(
        type='ImgDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        non_blocking=True,
    ),
)
