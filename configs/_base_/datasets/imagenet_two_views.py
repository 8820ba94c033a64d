# ImageNet-1k without its labels, one crop at two sizes: 224 px for the backbone, 112 px for the tokenizer (BEiT, CAE).
_base_ = './imagenet_pretrain.py'

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='mmpretrain.RandomFlip', prob=0.5),
    dict(
        type='TwoSizeRandomResizedCrop',
        scale=224,
        second_scale=112,
        interpolation='bicubic',
        second_interpolation='lanczos',
    ),
    dict(type='mmpretrain.PackInputs'),
]
train_dataloader = dict(batch_size=256, dataset=dict(pipeline=train_pipeline))
