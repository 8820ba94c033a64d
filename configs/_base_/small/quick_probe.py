# Quick probe on ten classes of 32-px images, one folder a class: 60 linear heads on one frozen ViT, chosen on images
# held out of train. The recipe states sizes, data, batch and duration.
_base_ = '../downstream_runtime.py'
default_scope = 'mmpretrain'

custom_hooks = [
    dict(type='mim_mm.LoadPretrainedHook', checkpoint=None, prefix='backbone.', target='backbone', min_loaded=0.95),
    dict(type='mim_mm.ClassCountHook'),
    dict(type='mim_mm.ProbeReportHook'),
]
data_preprocessor = dict(num_classes=10)
model = dict(
    type='mim_mm.MultiProbe',
    backbone=dict(type='mmpretrain.VisionTransformer', img_size=32),
    head=dict(num_classes=10, blocks=(1, 4), lrs=(0.01, 0.03, 0.1, 0.3, 1.0)),
)
transforms = [dict(type='LoadImageFromFile'), dict(type='PackInputs')]
train_dataloader = dict(num_workers=0, sampler=dict(type='InfiniteSampler', shuffle=True))
val_dataloader = dict(
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type='ConcatDataset'),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='mim_mm.ProbeAccuracy')
test_evaluator = val_evaluator

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='SGD', momentum=0.9, fused=True),
    constructor='mim_mm.ProbeHeadsConstructor',
)
param_scheduler = dict(type='mim_mm.HalfCosineLR', by_epoch=False)
train_cfg = dict(type='IterBasedTrainLoop')
val_cfg = dict()
test_cfg = dict()
default_hooks = dict(checkpoint=dict(by_epoch=False))
log_processor = dict(by_epoch=False)
