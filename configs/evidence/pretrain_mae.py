"""Evidence study, MAE on CIFAR-10: 64 patches of 4 px, a ViT of width 64 (docs/results/evidence_cifar10.md).

    python tools/train.py configs/evidence/pretrain_mae.py --data-root CIFAR

CIFAR holds train/<class>/*.jpg and val/<class>/*.jpg (EVIDENCE_ROOT names it as well). Batch 16: large batches hide
what the arms differ in at this length. In fp32: bf16 is no faster on a CPU with so narrow an encoder.
"""

_base_ = '../_base_/small/pretrain.py'
data_root = r"""{{$EVIDENCE_ROOT:data/cifar10}}"""
epochs = 2
warmup = 0.2

model = dict(
    data_preprocessor=dict(mean=[125.3, 123.0, 113.9], std=[63.0, 62.1, 66.7]),
    backbone=dict(
        arch=dict(embed_dims=64, num_layers=4, num_heads=2, feedforward_channels=256),
        patch_size=4,
    ),
    decoder=dict(embed_dims=32, depth=1, num_heads=1, fp32_head=True),
)
train_dataloader = dict(
    batch_size=16,
    drop_last=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        data_root=data_root,
        data_prefix='train',
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='mmpretrain.RandomCrop', crop_size=32, padding=4, padding_mode='reflect'),
            dict(type='mmpretrain.RandomFlip', prob=0.5),
            dict(type='PackImage'),
        ],
    ),
)
optim_wrapper = dict(optimizer=dict(lr=1e-3))
param_scheduler = [
    dict(type='WarmupLR', by_epoch=True, end=warmup, convert_to_iter_based=True),
    dict(type='HalfCosineLR', by_epoch=True, begin=warmup, convert_to_iter_based=True),
]
train_cfg = dict(by_epoch=True, max_epochs=epochs)
default_hooks = dict(logger=dict(interval=250), checkpoint=dict(interval=1, max_keep_ckpts=1))
