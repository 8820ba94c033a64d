# Training crops resized bilinearly, as torchvision does by default: DINO, iBOT, BEiT and MoCo v3.
bilinear_crop = [
    dict(type='LoadImageFromFile'),
    dict(type='RandomResizedCrop', scale=224, backend='pillow', interpolation='bilinear'),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='PackInputs'),
]
