# Linear probe on ten classes of 32-px images, one folder a class: frozen ViT of 4 blocks, mean of its tokens, BatchNorm
# without affine, one linear layer. The recipe states sizes, data, batch and duration.
_base_ = '../downstream_runtime.py'
default_scope = 'mmpretrain'

custom_hooks = [
    dict(type='mim_mm.LoadPretrainedHook', checkpoint=None, prefix='backbone.', target='backbone', min_loaded=0.95),
    dict(type='mim_mm.ClassCountHook'),
]
data_preprocessor = dict(num_classes=10)
model = dict(
    _scope_='mmpretrain',
    type='ImageClassifier',
    backbone=dict(type='VisionTransformer', img_size=32, out_type='avg_featmap', frozen_stages=4),
    neck=dict(type='ClsBatchNormNeck'),
    head=dict(type='LinearClsHead', num_classes=10, loss=dict(type='CrossEntropyLoss')),
)
train_dataloader = dict(
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(type='mim_mm.ClassFolders', data_prefix='train'),
)
val_dataloader = dict(
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='mim_mm.ClassFolders',
        data_prefix='val',
        classes_from='train',
        pipeline=[dict(type='LoadImageFromFile'), dict(type='PackInputs')],
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='Accuracy', topk=(1,))
test_evaluator = val_evaluator

optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-2, weight_decay=0.0, fused=True))
param_scheduler = dict(type='mim_mm.HalfCosineLR', by_epoch=True, convert_to_iter_based=True)
train_cfg = dict(by_epoch=True)
val_cfg = dict()
test_cfg = dict()
