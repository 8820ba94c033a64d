# ImageNet-1k without its labels, CMAE's two views: one crop of 256 px, of which the encoder gets the top left 224 px
# as they are and the target encoder a window up to 31 px off, its colours changed.
_base_ = './imagenet_pretrain.py'

train_pipeline = [
    dict(type='LazyLoadImageFromFile'),
    dict(type='FastRandomResizedCrop', scale=256, crop_ratio_range=(0.2, 1.0), interpolation='bicubic'),
    dict(type='FastRandomFlip', prob=0.5),
    dict(
        type='ShiftedViews',
        size=224,
        views=[
            dict(),
            dict(
                shift=31,
                colours=dict(
                    jitter=(0.4, 0.4, 0.4, 0.1), jitter_prob=0.8, grey_prob=0.2, blur_prob=0.5, blur_sigma=(0.1, 2.0)
                ),
            ),
        ],
    ),
    dict(type='PackViews'),
]
train_dataloader = dict(batch_size=256, dataset=dict(pipeline=train_pipeline))
