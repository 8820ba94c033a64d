"""Demo, quick probe on single digits: 60 linear heads at once on the frozen encoder, chosen on held-out images.

python tools/train.py configs/demo/quick_probe.py --cfg-options init=CKPT
"""

_base_ = ['../_base_/downstream_runtime.py']
default_scope = 'mmpretrain'
data_root = r"""{{$DEMO_ROOT:data/demo}}/digits"""

custom_hooks = [
    dict(type='mim_mm.LoadPretrainedHook', checkpoint=None, prefix='backbone.', target='backbone', min_loaded=0.95),
    dict(type='mim_mm.ClassCountHook'),
    dict(type='mim_mm.ProbeReportHook'),
]
data_preprocessor = dict(num_classes=10, mean=[110.0] * 3, std=[64.0] * 3, to_rgb=False)
model = dict(
    type='mim_mm.MultiProbe',
    backbone=dict(
        type='mmpretrain.VisionTransformer',
        arch=dict(embed_dims=128, num_layers=4, num_heads=4, feedforward_channels=512),
        img_size=32,
        patch_size=8,
    ),
    head=dict(num_classes=10, blocks=(1, 4), lrs=(0.01, 0.03, 0.1, 0.3, 1.0)),
)
transforms = [dict(type='LoadImageFromFile'), dict(type='PackInputs')]
held_out = dict(fraction=0.1, at_most=50, seed=0)
images = dict(type='mim_mm.ProbeImages', data_root=data_root, pipeline=transforms)
train_dataloader = dict(
    batch_size=64,
    num_workers=0,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(**images, data_prefix='train', part='fit', **held_out),
)
val_dataloader = dict(
    batch_size=120,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='ConcatDataset',
        datasets=[
            dict(**images, data_prefix='train', part='choose', **held_out),
            dict(**images, data_prefix='val', classes_from='train', part='report'),
        ],
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='mim_mm.ProbeAccuracy')
test_evaluator = val_evaluator

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='SGD', lr=64 / 256, momentum=0.9, fused=True),
    constructor='mim_mm.ProbeHeadsConstructor',
)
param_scheduler = dict(type='mim_mm.HalfCosineLR', by_epoch=False)
train_cfg = dict(type='IterBasedTrainLoop', max_iters=300, val_interval=300)
val_cfg = dict()
test_cfg = dict()
auto_scale_lr = dict(base_batch_size=64)
default_hooks = dict(logger=dict(interval=50), checkpoint=dict(by_epoch=False, interval=300))
log_processor = dict(by_epoch=False)
