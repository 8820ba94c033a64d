# ImageNet-1k without its labels: MAE's augmentation (He et al. 2022, appendix A.1), crop and flip only.
data_root = r"""{{$IMAGENET_ROOT:data/imagenet}}"""

train_pipeline = [
    # Same boxes and, within rounding, same pixels as LoadImageFromFile and mmpretrain's RandomResizedCrop by Pillow.
    dict(type='LazyLoadImageFromFile'),
    dict(type='FastRandomResizedCrop', scale=224, crop_ratio_range=(0.2, 1.0), interpolation='bicubic'),
    dict(type='FastRandomFlip', prob=0.5),
    dict(type='PackImage'),
]
train_dataloader = dict(
    batch_size=512,
    num_workers=12,
    persistent_workers=True,
    pin_memory=True,
    drop_last=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    dataset=dict(type='UnlabelledImages', data_root=data_root, data_prefix='train', pipeline=train_pipeline),
)
