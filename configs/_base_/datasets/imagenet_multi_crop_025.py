# Multi-crop with ten views of 96 px: large views show at least 0.25 of the image, small ones 0.05 to 0.25.
_base_ = './imagenet_multi_crop.py'

colours = dict(jitter=(0.4, 0.4, 0.2, 0.1), jitter_prob=0.8, grey_prob=0.2, blur_sigma=(0.1, 2.0))
global_crops = dict(scale=224, crop_ratio_range=(0.25, 1.0))
local_crops = dict(scale=96, crop_ratio_range=(0.05, 0.25), num=10)
train_pipeline = [
    dict(type='LazyLoadImageFromFile'),
    dict(
        type='MultiCrop',
        interpolation='bicubic',
        views=[
            dict(**global_crops, colours=dict(**colours, blur_prob=1.0)),
            dict(**global_crops, colours=dict(**colours, blur_prob=0.1, solarise_prob=0.2)),
            dict(**local_crops, colours=dict(**colours, blur_prob=0.5)),
        ],
    ),
    dict(type='PackViews'),
]
train_dataloader = dict(batch_size=128, dataset=dict(pipeline=train_pipeline))
