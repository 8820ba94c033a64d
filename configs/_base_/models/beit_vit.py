# BEiT, ViT-B/16: blocks of patches replaced by a mask token, DALL-E's visual tokens of 112-px views as targets.
# The tokenizer's weights are not part of this package: model.tokenizer_checkpoint=FILE.
model = dict(
    _scope_='mim_mm',
    type='BEiT',
    backbone=dict(
        type='mmpretrain.BEiTPretrainViT',
        arch='base',
        img_size=224,
        patch_size=16,
        drop_path_rate=0.1,
        layer_cfgs=dict(ffn_cfg=dict(add_identity=False, dropout_layer=None)),  # drop path once, as released
    ),
    masker=dict(type='BlockMasking', ratio=75 / 196),
    tokenizer=dict(type='mmpretrain.DALL-E'),
    tokenizer_checkpoint=None,
    data_preprocessor=dict(
        type='TwoNormPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        second_mean=[-31.875] * 3,  # the tokenizer wants 0.8 x + 0.1 of x in 0..1
        second_std=[318.75] * 3,
        to_rgb=True,
        non_blocking=True,
    ),
)
