"""Small scale, iBOT on CIFAR-10: as pretrain_dino.py, with masks, batch 32 and a smaller head.

    python tools/train.py configs/evidence/pretrain_ibot.py --data-root CIFAR

Blocks of at least (8 // 3) ** 2 = 4 patches on the grid of 8 x 8; large views of 64 patches, small ones of 16.
"""

_base_ = './pretrain_dino.py'
epochs = 1
warmup = 0.05

model = dict(
    type='iBOT',
    head=dict(out_dims=512, hidden_dims=128, bottleneck_dims=64),
    momentum=dict(start=0.97),
    masker=dict(
        type='DrawnRatio',
        ratio=None,
        share=0.5,
        masker=dict(type='BlockMasking', ratio=(0.1, 0.5), fill='none', round_down=True),
    ),
    teacher_temp=dict(start=0.04, end=0.04, epochs=0),
    patch_temp=dict(start=0.04, end=0.04, epochs=0),
)
train_dataloader = dict(batch_size=32)
optim_wrapper = dict(optimizer=dict(lr=1.5e-3))
param_scheduler = [
    dict(type='WarmupLR', by_epoch=True, end=warmup, convert_to_iter_based=True, like='beit'),
    dict(type='HalfCosineLR', eta_min=1e-6, by_epoch=True, begin=warmup, convert_to_iter_based=True, like='beit'),
    dict(type='HalfCosineWeightDecay', eta_min=0.4, by_epoch=True, convert_to_iter_based=True, like='beit'),
]
train_cfg = dict(max_epochs=epochs)
