# SimMIM, ViT-B/16 at 224 px: BEiT's ViT (positions only as a shared relative bias), 30 of 49 squares of 32 px hidden.
model = dict(
    _scope_='mim_mm',
    type='SimMIM',
    backbone=dict(
        type='mmpretrain.BEiTPretrainViT',
        arch='base',
        img_size=224,
        patch_size=16,
        drop_path_rate=0.1,
        layer_cfgs=dict(ffn_cfg=dict(add_identity=False, dropout_layer=None)),  # drop path once, as released
    ),
    mask_unit=32,
    masker=dict(type='RandomMasking', ratio=0.6),
    data_preprocessor=dict(
        type='ImgDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        non_blocking=True,
    ),
)
