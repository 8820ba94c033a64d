"""Demo, EMAE pretraining on unlabelled digits: 4 parts, a small ViT, grey pictures.

python tools/train.py configs/demo/pretrain_emae.py
"""

_base_ = ['../_base_/default_runtime.py']
default_scope = 'mim_mm'
data_root = r"""{{$DEMO_ROOT:data/demo}}/"""
max_iters = 1000
warmup = 40

model = dict(
    _scope_='mim_mm',
    type='EMAE',
    data_preprocessor=dict(type='ImgDataPreprocessor', mean=[110.0] * 3, std=[64.0] * 3),
    backbone=dict(
        type='mmpretrain.VisionTransformer',
        arch=dict(embed_dims=128, num_layers=4, num_heads=4, feedforward_channels=512),
        img_size=32,
        patch_size=8,
        out_type='raw',
    ),
    masker=dict(type='ParallelMasking', num_parts=4),
    decoder=dict(type='MAEDecoder', embed_dims=64, depth=2, num_heads=4, fp32_head=True),
    norm_eps=0.02,
    consistency_weight=0.1,
)
train_dataloader = dict(
    batch_size=48,
    num_workers=0,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='UnlabelledImages',
        data_root=data_root + 'unlabelled',
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='mmpretrain.RandomResizedCrop', scale=32, crop_ratio_range=(0.6, 1.0)),
            dict(type='PackImage'),
        ],
    ),
)
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1.5e-3, betas=(0.9, 0.95), weight_decay=0.05, fused=True),
    clip_grad=dict(max_norm=1.0),
)
param_scheduler = [
    dict(type='mim_mm.WarmupLR', start_factor=0.01, by_epoch=False, end=warmup),
    dict(type='mim_mm.HalfCosineLR', by_epoch=False, begin=warmup, end=max_iters, eta_min=1e-6),
]
log_processor = dict(by_epoch=False)
train_cfg = dict(type='IterBasedTrainLoop', max_iters=max_iters)
custom_hooks = [dict(type='AgreementWatchHook')]
default_hooks = dict(
    logger=dict(interval=10, log_metric_by_epoch=False),
    checkpoint=dict(interval=max_iters, by_epoch=False),
)
