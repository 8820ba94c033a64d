# iBOT, ViT-S/16: each large view is masked with probability 1/2, 10 to 50 % of it in blocks; one head for class token
# and patches.
model = dict(
    _scope_='mim_mm',
    type='iBOT',
    backbone=dict(
        type='mmpretrain.VisionTransformer',
        arch='deit-small',
        img_size=224,
        patch_size=16,
        drop_path_rate=0.1,
        out_type='raw',
    ),
    masker=dict(
        type='DrawnRatio',
        ratio=None,
        share=0.5,
        masker=dict(type='BlockMasking', ratio=(0.1, 0.5), fill='none', round_down=True),
    ),
    head=dict(out_dims=8192, norm_last_layer=False),
    momentum=dict(start=0.996, end=1.0),
    teacher_temp=dict(start=0.04, end=0.07, epochs=30),
    patch_temp=dict(start=0.04, end=0.07, epochs=30),
    data_preprocessor=dict(
        type='mmpretrain.SelfSupDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        non_blocking=True,
    ),
)
