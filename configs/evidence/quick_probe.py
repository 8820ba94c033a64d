"""Evidence study, quick probe on CIFAR-10: 60 linear heads on the frozen encoder, chosen on held-out training images.

    python tools/train.py configs/evidence/quick_probe.py --data-root CIFAR --cfg-options init=CKPT

The test set is read once, for the figure of the head that was chosen without it.
"""

_base_ = ['../_base_/downstream_runtime.py']
default_scope = 'mmpretrain'
data_root = r"""{{$EVIDENCE_ROOT:data/cifar10}}"""

custom_hooks = [
    dict(type='mim_mm.LoadPretrainedHook', checkpoint=None, prefix='backbone.', target='backbone', min_loaded=0.95),
    dict(type='mim_mm.ClassCountHook'),
    dict(type='mim_mm.ProbeReportHook'),
]
data_preprocessor = dict(num_classes=10, mean=[125.3, 123.0, 113.9], std=[63.0, 62.1, 66.7], to_rgb=True)
model = dict(
    type='mim_mm.MultiProbe',
    backbone=dict(
        type='mmpretrain.VisionTransformer',
        arch=dict(embed_dims=64, num_layers=4, num_heads=2, feedforward_channels=256),
        img_size=32,
        patch_size=4,
    ),
    head=dict(num_classes=10, blocks=(1, 4), lrs=(0.01, 0.03, 0.1, 0.3, 1.0)),
)
transforms = [dict(type='LoadImageFromFile'), dict(type='PackInputs')]
held_out = dict(fraction=0.1, at_most=500, seed=0)
images = dict(type='mim_mm.ProbeImages', data_root=data_root)
train_dataloader = dict(
    batch_size=128,
    num_workers=0,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        **images,
        data_prefix='train',
        part='fit',
        **held_out,
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='RandomCrop', crop_size=32, padding=4, padding_mode='reflect'),
            dict(type='RandomFlip', prob=0.5),
            dict(type='PackInputs'),
        ],
    ),
)
val_dataloader = dict(
    batch_size=250,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='ConcatDataset',
        datasets=[
            dict(**images, data_prefix='train', part='choose', **held_out, pipeline=transforms),
            dict(**images, data_prefix='val', classes_from='train', part='report', pipeline=transforms),
        ],
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='mim_mm.ProbeAccuracy')
test_evaluator = val_evaluator

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='SGD', lr=128 / 256, momentum=0.9, fused=True),
    constructor='mim_mm.ProbeHeadsConstructor',
)
param_scheduler = dict(type='mim_mm.HalfCosineLR', by_epoch=False)
train_cfg = dict(type='IterBasedTrainLoop', max_iters=700, val_interval=700)
val_cfg = dict()
test_cfg = dict()
auto_scale_lr = dict(base_batch_size=128)
default_hooks = dict(logger=dict(interval=100), checkpoint=dict(by_epoch=False, interval=700))
log_processor = dict(by_epoch=False)
