"""Evidence study, quick probe on CIFAR-10: 60 linear heads on the frozen encoder, chosen on held-out training images.

    python tools/train.py configs/evidence/quick_probe.py --data-root CIFAR --cfg-options init=CKPT

The test set is read once, for the figure of the head that was chosen without it.
"""

_base_ = '../_base_/small/quick_probe.py'
data_root = r"""{{$EVIDENCE_ROOT:data/cifar10}}"""

data_preprocessor = dict(mean=[125.3, 123.0, 113.9], std=[63.0, 62.1, 66.7], to_rgb=True)
model = dict(
    backbone=dict(
        arch=dict(embed_dims=64, num_layers=4, num_heads=2, feedforward_channels=256),
        patch_size=4,
    )
)
held_out = dict(fraction=0.1, at_most=500, seed=0)
images = dict(type='mim_mm.ProbeImages', data_root=data_root)
train_dataloader = dict(
    batch_size=128,
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
    dataset=dict(
        datasets=[
            dict(**images, data_prefix='train', part='choose', **held_out, pipeline={{_base_.transforms}}),
            dict(**images, data_prefix='val', classes_from='train', part='report', pipeline={{_base_.transforms}}),
        ],
    ),
)
test_dataloader = val_dataloader

optim_wrapper = dict(optimizer=dict(lr=128 / 256))
train_cfg = dict(max_iters=700, val_interval=700)
auto_scale_lr = dict(base_batch_size=128)
default_hooks = dict(logger=dict(interval=100), checkpoint=dict(interval=700))
