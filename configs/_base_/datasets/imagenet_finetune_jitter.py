# As imagenet_finetune.py with colour jitter 0.4 in the place of RandAugment: CAE's script names no automatic policy.
_base_ = './imagenet_finetune.py'

train_pipeline = [
    dict(type='mim_mm.LazyLoadImageFromFile'),
    dict(type='mim_mm.FastRandomResizedCrop', scale=224, interpolation='bicubic'),
    dict(type='mim_mm.FastRandomFlip', prob=0.5),
    dict(type='ColorJitter', brightness=0.4, contrast=0.4, saturation=0.4),
    dict(
        type='RandomErasing',
        erase_prob=0.25,
        mode='rand',
        min_area_ratio=0.02,
        max_area_ratio=1 / 3,
        fill_color=[103.53, 116.28, 123.675],
        fill_std=[57.375, 57.12, 58.395],
    ),
    dict(type='PackInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
