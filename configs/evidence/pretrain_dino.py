"""Small scale, DINO on CIFAR-10: 64 patches of 4 px, a ViT of width 64, views of 32 and 16 px.

    python tools/train.py configs/evidence/pretrain_dino.py --data-root CIFAR

CIFAR holds train/<class>/*.jpg and val/<class>/*.jpg (EVIDENCE_ROOT names it as well). Batch 64, rate and momentum for
it chosen by hand, not swept; 1024 prototypes; linears of the backbone start at 0.07, which at 64 inputs does as
much as the released 0.02 at ViT-B's 768; no blur, which leaves little of 32 px. The head trains from the start:
the first epoch, for which the releases leave it fixed, is half of all. In fp32.
"""

_base_ = ['../_base_/models/dino_vit.py', '../_base_/schedules/dino_pretrain.py', '../_base_/default_runtime.py']
data_root = r"""{{$EVIDENCE_ROOT:data/cifar10}}"""
epochs = 2
warmup = 0.2

model = dict(
    data_preprocessor=dict(mean=[125.3, 123.0, 113.9], std=[63.0, 62.1, 66.7]),
    backbone=dict(
        arch=dict(_delete_=True, embed_dims=64, num_layers=4, num_heads=2, feedforward_channels=256),
        img_size=32,
        patch_size=4,
        drop_path_rate=0.0,
        init_cfg=[
            dict(type='TruncNormal', layer='Linear', std=0.07, bias=0.0),
            dict(type='Constant', layer='LayerNorm', val=1.0, bias=0.0),
        ],
    ),
    head=dict(out_dims=1024, hidden_dims=256, bottleneck_dims=128, norm_last_layer=True),
    momentum=dict(start=0.98, end=1.0),
)
colours = dict(jitter=(0.4, 0.4, 0.2, 0.1), jitter_prob=0.8, grey_prob=0.2)
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
                interpolation='bicubic',
                views=[
                    dict(num=2, scale=32, crop_ratio_range=(0.4, 1.0), colours=colours),
                    dict(num=2, scale=16, crop_ratio_range=(0.1, 0.4), colours=colours),
                ],
            ),
            dict(type='PackViews'),
        ],
    ),
)
optim_wrapper = dict(on_cpu=False, optimizer=dict(lr=1e-3))
param_scheduler = [
    dict(type='WarmupLR', by_epoch=True, end=warmup, convert_to_iter_based=True, like='beit'),
    dict(type='HalfCosineLR', eta_min=1e-6, by_epoch=True, begin=warmup, convert_to_iter_based=True, like='beit'),
    dict(type='HalfCosineWeightDecay', eta_min=0.4, by_epoch=True, convert_to_iter_based=True, like='beit'),
]
custom_hooks = [dict(type='CollapseHook', interval=50)]
train_cfg = dict(by_epoch=True, max_epochs=epochs)
default_hooks = dict(logger=dict(interval=100), checkpoint=dict(interval=5, max_keep_ckpts=1))
