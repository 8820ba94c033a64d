# ImageNet-1k without its labels, MSN's views: the target and one large anchor of 224 px, ten small anchors of 96 px.
_base_ = './imagenet_pretrain.py'

colours = dict(jitter=(0.4, 0.4, 0.4, 0.1), jitter_prob=0.8, grey_prob=0.2, blur_prob=0.5, blur_sigma=(0.1, 2.0))
train_pipeline = [
    dict(type='LazyLoadImageFromFile'),
    dict(
        type='MultiCrop',
        interpolation='bilinear',
        views=[
            dict(num=2, scale=224, crop_ratio_range=(0.3, 1.0), colours=colours),
            dict(num=10, scale=96, crop_ratio_range=(0.05, 0.3), colours=colours),
        ],
    ),
    dict(type='PackViews'),
]
train_dataloader = dict(batch_size=128, dataset=dict(pipeline=train_pipeline))
