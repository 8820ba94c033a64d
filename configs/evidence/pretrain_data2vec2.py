"""Small scale, data2vec 2.0 on CIFAR-10: 64 patches of 4 px, a post-norm ViT of width 64, targets from three blocks.

    python tools/train.py configs/evidence/pretrain_data2vec2.py --data-root CIFAR

CIFAR holds train/<class>/*.jpg and val/<class>/*.jpg (EVIDENCE_ROOT names it as well). Eight copies an image that
show 12 of 64 patches: one square of 3 x 3 and three more. Batch 16, rate and momentum for it chosen by hand, not
swept: the released 0.9998 would not move in 6,250 steps. Linears start at 0.07 and the patch embedding at 0.14, by
their 64 and 48 inputs what 0.02 is at the 768 of ViT-B/16 and nearly what Xavier gives; images are divided by a
quarter of their spread, so that patches of 4 px stand above the positions as patches of 16 px do. In fp32. k-NN of
the student: --prefix backbone.
"""

_base_ = './pretrain_mae.py'
epochs = 2
warmup = 0.2

model = dict(
    _delete_=True,
    _scope_='mim_mm',
    type='data2vec2',
    data_preprocessor=dict(type='ImgDataPreprocessor', mean=[125.3, 123.0, 113.9], std=[15.75, 15.5, 16.7]),
    backbone=dict(
        type='PostNormViT',
        arch=dict(embed_dims=64, num_layers=4, num_heads=2, feedforward_channels=256),
        img_size=32,
        patch_size=4,
        out_type='raw',
        init_cfg=[
            dict(type='TruncNormal', layer='Linear', std=0.07, bias=0.0),
            dict(type='TruncNormal', layer='Conv2d', std=0.14, bias=0.0),
            dict(type='Constant', layer='LayerNorm', val=1.0, bias=0.0),
        ],
    ),
    masker=dict(type='InverseBlockMasking', num_parts=8),
    decoder=dict(depth=3),
    target_blocks=[-3, -2, -1],
    momentum=dict(start=0.99, end=0.9998, steps=6250),
)
train_dataloader = dict(batch_size=16)
optim_wrapper = dict(clip_grad=dict(max_norm=4.0), optimizer=dict(lr=1e-3, betas=(0.9, 0.95)))
param_scheduler = [
    dict(type='WarmupLR', by_epoch=True, end=warmup, convert_to_iter_based=True),
    dict(type='HalfCosineLR', by_epoch=True, begin=warmup, convert_to_iter_based=True),
]
custom_hooks = [dict(type='CollapseHook', interval=50)]
train_cfg = dict(max_epochs=epochs)
default_hooks = dict(logger=dict(interval=200), checkpoint=dict(interval=5, max_keep_ckpts=1))
