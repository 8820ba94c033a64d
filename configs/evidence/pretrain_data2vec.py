"""Small scale, data2vec on CIFAR-10: 64 patches of 4 px, BEiT's ViT of width 64, targets from two blocks of four.

    python tools/train.py configs/evidence/pretrain_data2vec.py --data-root CIFAR

CIFAR holds train/<class>/*.jpg and val/<class>/*.jpg (EVIDENCE_ROOT names it as well). Batch 16, rate and momentum for
it chosen by hand, not swept: the released 0.9998 would not move in 12,500 steps. Matrices start at 0.07 and the patch
embedding at 0.08, not at 0.02: by their 64 and 48 inputs that is what 0.02 is at the 768 of ViT-B/16; from 0.02 (and
half the rate) k-NN rose by two points. Layer scale 0.1, no drop path, no dropout of attention. In fp32. k-NN
of the student: --prefix backbone.
"""

_base_ = './pretrain_mae.py'
epochs = 4
warmup = 0.2

model = dict(
    _delete_=True,
    _scope_='mim_mm',
    type='data2vec',
    data_preprocessor=dict(type='ImgDataPreprocessor', mean=[125.3, 123.0, 113.9], std=[63.0, 62.1, 66.7]),
    backbone=dict(
        type='mmpretrain.BEiTPretrainViT',
        arch=dict(embed_dims=64, num_layers=4, num_heads=2, feedforward_channels=256),
        img_size=32,
        patch_size=4,
        layer_scale_init_value=0.1,
        init_cfg=[
            dict(type='TruncNormal', layer='Linear', std=0.07, bias=0.0),
            dict(type='TruncNormal', layer='Conv2d', std=0.08, bias=0.0),
            dict(type='Constant', layer='LayerNorm', val=1.0, bias=0.0),
        ],
    ),
    masker=dict(type='BlockMasking', ratio=0.6, fill='none'),
    target_blocks=[-2, -1],
    momentum=dict(start=0.99, end=1.0),
    beta=2.0,
)
train_dataloader = dict(batch_size=16)
optim_wrapper = dict(clip_grad=dict(max_norm=3.0), optimizer=dict(lr=1e-3, betas=(0.9, 0.999)))
param_scheduler = [
    dict(type='WarmupLR', by_epoch=True, end=warmup, convert_to_iter_based=True, like='beit'),
    dict(type='HalfCosineLR', eta_min=1e-5, by_epoch=True, begin=warmup, convert_to_iter_based=True, like='beit'),
]
custom_hooks = [dict(type='CollapseHook', interval=50)]
train_cfg = dict(max_epochs=epochs)
default_hooks = dict(logger=dict(interval=200), checkpoint=dict(interval=5, max_keep_ckpts=1))
