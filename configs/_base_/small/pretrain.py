# MAE on images of 32 px without labels, a small ViT. The recipe states sizes, data, batch, schedule and hooks.
_base_ = '../default_runtime.py'
default_scope = 'mim_mm'

model = dict(
    _scope_='mim_mm',
    type='MAE',
    data_preprocessor=dict(type='ImgDataPreprocessor'),
    backbone=dict(type='mmpretrain.VisionTransformer', img_size=32, out_type='raw'),
    masker=dict(type='RandomMasking', ratio=0.75),
    decoder=dict(type='MAEDecoder'),
    norm_eps=0.02,
)
train_dataloader = dict(
    num_workers=0,
    collate_fn=dict(type='default_collate'),
    dataset=dict(type='UnlabelledImages'),
)
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', betas=(0.9, 0.95), weight_decay=0.05, fused=True),
    clip_grad=dict(max_norm=1.0),
)
