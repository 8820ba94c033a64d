# As imagenet_finetune.py with mean = std = 0.5 (BEiT); RandAugment pads with it.
_base_ = './imagenet_finetune.py'

data_preprocessor = dict(mean=[127.5] * 3, std=[127.5] * 3)
train_pipeline = [
    dict(type='mim_mm.LazyLoadImageFromFile'),
    dict(type='mim_mm.FastRandomResizedCrop', scale=224, interpolation='bicubic'),
    dict(type='mim_mm.FastRandomFlip', prob=0.5),
    dict(
        type='RandAugment',
        policies='timm_increasing',
        num_policies=2,
        total_level=10,
        magnitude_level=9,
        magnitude_std=0.5,
        hparams=dict(pad_val=[128] * 3, interpolation='bicubic'),
    ),
    dict(type='mim_mm.RandomErasingBox', erase_prob=0.25, min_area_ratio=0.02, max_area_ratio=1 / 3),
    dict(type='PackInputs', meta_keys=('img_path', 'erase_box')),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
