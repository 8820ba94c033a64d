"""Demo, linear probe on single digits: frozen encoder, mean of its tokens, BatchNorm without affine, one linear layer.

python tools/train.py configs/demo/linear.py --cfg-options init=CKPT
"""

_base_ = ['../_base_/downstream_runtime.py']
default_scope = 'mmpretrain'
data_root = r"""{{$DEMO_ROOT:data/demo}}/digits"""
epochs = 25

custom_hooks = [
    dict(type='mim_mm.LoadPretrainedHook', checkpoint=None, prefix='backbone.', target='backbone', min_loaded=0.95),
    dict(type='mim_mm.ClassCountHook'),
]
data_preprocessor = dict(num_classes=10, mean=[110.0] * 3, std=[64.0] * 3, to_rgb=False)
model = dict(
    _scope_='mmpretrain',
    type='ImageClassifier',
    backbone=dict(
        type='VisionTransformer',
        arch=dict(embed_dims=128, num_layers=4, num_heads=4, feedforward_channels=512),
        img_size=32,
        patch_size=8,
        out_type='avg_featmap',
        frozen_stages=4,
    ),
    neck=dict(type='ClsBatchNormNeck', input_features=128),
    head=dict(type='LinearClsHead', num_classes=10, in_channels=128, loss=dict(type='CrossEntropyLoss')),
)
transforms = [dict(type='LoadImageFromFile'), dict(type='PackInputs')]
train_dataloader = dict(
    batch_size=64,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(type='mim_mm.ClassFolders', data_root=data_root, data_prefix='train', pipeline=transforms),
)
val_dataloader = dict(
    batch_size=120,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='mim_mm.ClassFolders', data_root=data_root, data_prefix='val', classes_from='train', pipeline=transforms
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='Accuracy', topk=(1,))
test_evaluator = val_evaluator

optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-2, weight_decay=0.0, fused=True))
param_scheduler = dict(type='mim_mm.HalfCosineLR', by_epoch=True, convert_to_iter_based=True)
train_cfg = dict(by_epoch=True, max_epochs=epochs, val_interval=5)
val_cfg = dict()
test_cfg = dict()
default_hooks = dict(logger=dict(interval=10), checkpoint=dict(interval=epochs))
