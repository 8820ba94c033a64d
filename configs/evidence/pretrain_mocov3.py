"""Small scale, MoCo v3 on CIFAR-10: 64 patches of 4 px, a ViT of width 64, two views of 32 px.

    python tools/train.py configs/evidence/pretrain_mocov3.py --data-root CIFAR

CIFAR holds train/<class>/*.jpg and val/<class>/*.jpg (EVIDENCE_ROOT names it as well). Batch 64: negatives come from
the batch. Projector and predictor 256 wide; rate and momentum for the short run chosen by hand, not swept; no blur,
which leaves little of 32 px. In fp32.
"""

_base_ = ['../_base_/models/mocov3_vit.py', '../_base_/schedules/mocov3_pretrain.py', '../_base_/default_runtime.py']
data_root = r"""{{$EVIDENCE_ROOT:data/cifar10}}"""
epochs = 2
warmup = 0.2

model = dict(
    data_preprocessor=dict(mean=[125.3, 123.0, 113.9], std=[63.0, 62.1, 66.7]),
    backbone=dict(
        arch=dict(_delete_=True, embed_dims=64, num_layers=4, num_heads=2, feedforward_channels=256),
        img_size=32,
        patch_size=4,
    ),
    hidden_dims=256,
    out_dims=64,
    momentum=dict(start=0.98, end=1.0),
)
colours = dict(jitter=(0.4, 0.4, 0.2, 0.1), jitter_prob=0.8, grey_prob=0.2)
crops = dict(scale=32, crop_ratio_range=(0.2, 1.0))
train_dataloader = dict(
    batch_size=64,
    num_workers=0,
    drop_last=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='UnlabelledImages',
        data_root=data_root,
        data_prefix='train',
        pipeline=[
            dict(type='LazyLoadImageFromFile'),
            dict(
                type='MultiCrop',
                interpolation='bilinear',
                views=[
                    dict(**crops, colours=colours),
                    dict(**crops, colours=dict(**colours, solarise_prob=0.2)),
                ],
            ),
            dict(type='PackViews'),
        ],
    ),
)
optim_wrapper = dict(on_cpu=False, optimizer=dict(lr=1e-3))
param_scheduler = [
    dict(type='WarmupLR', by_epoch=True, end=warmup, convert_to_iter_based=True),
    dict(type='HalfCosineLR', by_epoch=True, begin=warmup, convert_to_iter_based=True),
]
custom_hooks = [dict(type='CollapseHook', interval=50)]
train_cfg = dict(by_epoch=True, max_epochs=epochs)
default_hooks = dict(logger=dict(interval=50), checkpoint=dict(interval=1, max_keep_ckpts=1))
