"""Evidence study, linear probe on CIFAR-10: frozen encoder, mean of its tokens, BatchNorm without affine, one layer.

    python tools/train.py configs/evidence/linear.py --data-root CIFAR --cfg-options init=CKPT

One rate for all arms, where quick_probe.py chooses one for each.
"""

_base_ = '../_base_/small/linear.py'
data_root = r"""{{$EVIDENCE_ROOT:data/cifar10}}"""
epochs = 4

data_preprocessor = dict(mean=[125.3, 123.0, 113.9], std=[63.0, 62.1, 66.7], to_rgb=True)
model = dict(
    backbone=dict(
        arch=dict(embed_dims=64, num_layers=4, num_heads=2, feedforward_channels=256),
        patch_size=4,
    ),
    neck=dict(input_features=64),
    head=dict(in_channels=64),
)
train_dataloader = dict(
    batch_size=256,
    dataset=dict(
        data_root=data_root,
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='RandomCrop', crop_size=32, padding=4, padding_mode='reflect'),
            dict(type='RandomFlip', prob=0.5),
            dict(type='PackInputs'),
        ],
    ),
)
val_dataloader = dict(batch_size=250, dataset=dict(data_root=data_root))
test_dataloader = val_dataloader
train_cfg = dict(max_epochs=epochs, val_interval=epochs)
default_hooks = dict(logger=dict(interval=50), checkpoint=dict(interval=epochs))
