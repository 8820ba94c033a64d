# BootMAE, ViT-B/16: 120 patches hidden in blocks, 27 drawn at random, up to 3 change roles; two decoders of 2 blocks.
model = dict(
    _scope_='mim_mm',
    type='BootMAE',
    backbone=dict(
        type='mmpretrain.BEiTViT',
        arch='base',
        img_size=224,
        patch_size=16,
        out_type='raw',
        final_norm=True,
        use_abs_pos_emb=True,
        use_rel_pos_bias=False,
        layer_scale_init_value=0,
    ),
    masker=dict(type='BlockMasking', ratio=147 / 196, block_ratio=120 / 196, max_block=60, fill='blocks', roll=3),
    decoder_dims=512,
    decoder_depth=2,
    feature_weight=1.0,
    feature_ramp=0.25,
    data_preprocessor=dict(type='ImgDataPreprocessor', mean=[127.5] * 3, std=[127.5] * 3, non_blocking=True),
)
