# As imagenet_linear.py, with the crop of MAE's probe: area and shape are drawn once and cut to the image.
_base_ = './imagenet_linear.py'

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='mim_mm.MAERandomResizedCrop', scale=224, backend='pillow', interpolation='bicubic'),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='PackInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
