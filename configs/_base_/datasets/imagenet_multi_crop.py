# ImageNet-1k without its labels, multi-crop of DINO and iBOT: 2 views of 224 px and 8 (DINO's default) of 96 px.
# ``inputs`` is a list of 2 + n tensors (B, 3, h, w), the two of 224 px first. Recipes set the scales and numbers of
# their release: iBOT's pretrained ViTs have crop_ratio_range (0.25, 1) and ten views of (0.05, 0.25).
_base_ = './imagenet_pretrain.py'

colours = dict(jitter=(0.4, 0.4, 0.2, 0.1), jitter_prob=0.8, grey_prob=0.2, blur_sigma=(0.1, 2.0))
global_crops = dict(scale=224, crop_ratio_range=(0.4, 1.0))
local_crops = dict(scale=96, crop_ratio_range=(0.05, 0.4), num=8)
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
train_dataloader = dict(batch_size=64, dataset=dict(pipeline=train_pipeline))
