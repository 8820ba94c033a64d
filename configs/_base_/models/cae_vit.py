# CAE, ViT-B/16: half of the patches hidden in blocks, latents regressed and decoded to DALL-E's visual tokens.
# Published depths and drop path; mmpretrain's recipe hides 75 patches and has no drop path.
_base_ = './beit_vit.py'
model = dict(
    type='CAE',
    backbone=dict(
        _delete_=True,
        type='mmpretrain.CAEPretrainViT',
        arch='base',
        img_size=224,
        patch_size=16,
        drop_path_rate=0.1,
        layer_cfgs=dict(ffn_cfg=dict(add_identity=False, dropout_layer=None)),  # drop path once, as released
        layer_scale_init_value=0.1,
    ),
    neck=dict(num_heads=12, regressor_depth=4, decoder_depth=4, drop_path_rate=0.1),
    align_weight=2.0,
    masker=dict(_delete_=True, type='BlockMasking', ratio=0.5, fill='blocks'),
)
