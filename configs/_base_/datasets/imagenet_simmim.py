# ImageNet-1k without its labels, SimMIM's augmentation: larger crops than MAE's, bilinear. Swin recipes set scale=192.
_base_ = './imagenet_pretrain.py'

train_pipeline = [
    dict(type='LazyLoadImageFromFile'),
    dict(type='FastRandomResizedCrop', scale=224, crop_ratio_range=(0.67, 1.0), interpolation='bilinear'),
    dict(type='FastRandomFlip', prob=0.5),
    dict(type='PackImage'),
]
train_dataloader = dict(batch_size=256, dataset=dict(pipeline=train_pipeline))
