"""Small scale, MSN on CIFAR-10: 64 patches of 4 px, a ViT of width 64, views of 32 and 16 px.

    python tools/train.py configs/evidence/pretrain_msn.py --data-root CIFAR

CIFAR holds train/<class>/*.jpg and val/<class>/*.jpg (EVIDENCE_ROOT names it as well). Batch 32; a target, one large
anchor that loses 10 of 64 patches, two small ones; 64 prototypes; rate and momentum for the short run chosen by hand,
not swept; no blur, which leaves little of 32 px. In fp32. k-NN of the teacher: --prefix teacher.backbone.
"""

_base_ = ['../_base_/models/msn_vit.py', '../_base_/schedules/msn_pretrain.py', '../_base_/default_runtime.py']
data_root = r"""{{$EVIDENCE_ROOT:data/cifar10}}"""
epochs = 3
warmup = 0.2

model = dict(
    data_preprocessor=dict(mean=[125.3, 123.0, 113.9], std=[63.0, 62.1, 66.7]),
    backbone=dict(
        arch=dict(_delete_=True, embed_dims=64, num_layers=4, num_heads=2, feedforward_channels=256),
        img_size=32,
        patch_size=4,
    ),
    prototypes=64,
    hidden_dims=256,
    out_dims=64,
    momentum=dict(start=0.99, end=1.0),
)
colours = dict(jitter=(0.4, 0.4, 0.4, 0.1), jitter_prob=0.8, grey_prob=0.2)
train_dataloader = dict(
    batch_size=32,
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
                    dict(num=2, scale=32, crop_ratio_range=(0.3, 1.0), colours=colours),
                    dict(num=2, scale=16, crop_ratio_range=(0.1, 0.3), colours=colours),
                ],
            ),
            dict(type='PackViews'),
        ],
    ),
)
optim_wrapper = dict(on_cpu=False)
wave = dict(by_epoch=True, convert_to_iter_based=True, like='msn')
param_scheduler = [
    dict(type='WarmupLR', start_factor=0.2, end=warmup, **wave),
    dict(type='HalfCosineLR', eta_min=1e-6, begin=warmup, stretch=1.25, **wave),
    dict(type='HalfCosineWeightDecay', eta_min=0.4, stretch=1.25, **wave),
]
custom_hooks = [dict(type='CollapseHook', interval=50)]
train_cfg = dict(by_epoch=True, max_epochs=epochs)
default_hooks = dict(logger=dict(interval=200), checkpoint=dict(interval=1, max_keep_ckpts=1))
