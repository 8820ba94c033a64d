"""Demo, MAE pretraining on unlabelled digits, for tools/transfer.py --compare: EMAE's recipe with one part, not four.

    python tools/train.py configs/demo/pretrain_mae.py

An image is encoded once an iteration (EMAE: four times), so equal epochs are a quarter of the views (docs/compare.md).
"""

_base_ = '../_base_/small/pretrain.py'
data_root = r"""{{$DEMO_ROOT:data/demo}}/"""
max_iters = 1000
warmup = 40

model = dict(
    data_preprocessor=dict(mean=[110.0] * 3, std=[64.0] * 3),
    backbone=dict(
        arch=dict(embed_dims=128, num_layers=4, num_heads=4, feedforward_channels=512),
        patch_size=8,
    ),
    decoder=dict(embed_dims=64, depth=2, num_heads=4),
)
train_dataloader = dict(
    batch_size=48,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        data_root=data_root + 'unlabelled',
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='mmpretrain.RandomResizedCrop', scale=32, crop_ratio_range=(0.6, 1.0)),
            dict(type='PackImage'),
        ],
    ),
)
optim_wrapper = dict(optimizer=dict(lr=1.5e-3))
auto_scale_lr = dict(base_batch_size=48)
param_scheduler = [
    dict(type='mim_mm.WarmupLR', start_factor=0.01, by_epoch=False, end=warmup),
    dict(type='mim_mm.HalfCosineLR', by_epoch=False, begin=warmup, end=max_iters, eta_min=1e-6),
]
log_processor = dict(by_epoch=False)
train_cfg = dict(type='IterBasedTrainLoop', max_iters=max_iters)
default_hooks = dict(
    logger=dict(interval=10, log_metric_by_epoch=False),
    checkpoint=dict(interval=max_iters, by_epoch=False),
)
