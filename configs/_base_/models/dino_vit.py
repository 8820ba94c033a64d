# DINO, ViT-S/16: one head on the class token, nothing masked.
model = dict(
    _scope_='mim_mm',
    type='DINO',
    backbone=dict(
        type='mmpretrain.VisionTransformer',
        arch='deit-small',
        img_size=224,
        patch_size=16,
        drop_path_rate=0.1,
        out_type='raw',
    ),
    head=dict(out_dims=65536, norm_last_layer=False),
    momentum=dict(start=0.996, end=1.0),
    teacher_temp=dict(start=0.04, end=0.04, epochs=0),
    data_preprocessor=dict(
        type='mmpretrain.SelfSupDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        non_blocking=True,
    ),
)
