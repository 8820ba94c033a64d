# ImageNet-1k without its labels, MoCo v3's two views for ViTs, with BYOL's colours: crops from 0.08 of the image on,
# bilinear.
_base_ = './imagenet_pretrain.py'

colours = dict(jitter=(0.4, 0.4, 0.2, 0.1), jitter_prob=0.8, grey_prob=0.2, blur_sigma=(0.1, 2.0))
crops = dict(scale=224, crop_ratio_range=(0.08, 1.0))
train_pipeline = [
    dict(type='LazyLoadImageFromFile'),
    dict(
        type='MultiCrop',
        interpolation='bilinear',
        views=[
            dict(**crops, colours=dict(**colours, blur_prob=1.0)),
            dict(**crops, colours=dict(**colours, blur_prob=0.1, solarise_prob=0.2)),
        ],
    ),
    dict(type='PackViews'),
]
train_dataloader = dict(batch_size=512, dataset=dict(pipeline=train_pipeline))
