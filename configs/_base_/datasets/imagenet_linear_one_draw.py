# As imagenet_linear.py, with the crop of MAE's probe: area and shape are drawn once and cut to the image.
_base_ = './imagenet_linear.py'

train_pipeline = [
    dict(type='mim_mm.LazyLoadImageFromFile'),
    dict(type='mim_mm.MAERandomResizedCrop', scale=224, interpolation='bicubic'),
    dict(type='mim_mm.FastRandomFlip', prob=0.5),
    dict(type='PackInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
