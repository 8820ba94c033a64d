# ImageNet-1k without its labels, I-JEPA's augmentation: crops of 30 % and more, bilinear, nothing else; no flip.
_base_ = './imagenet_pretrain.py'

train_pipeline = [
    dict(type='LazyLoadImageFromFile'),
    dict(type='FastRandomResizedCrop', scale=224, crop_ratio_range=(0.3, 1.0), interpolation='bilinear'),
    dict(type='PackImage'),
]
train_dataloader = dict(batch_size=256, dataset=dict(pipeline=train_pipeline))
