# Training crops resized bilinearly, as torchvision does by default: DINO, iBOT, BEiT and MoCo v3.
bilinear_crop = [
    dict(type='mim_mm.LazyLoadImageFromFile'),
    dict(type='mim_mm.FastRandomResizedCrop', scale=224, interpolation='bilinear'),
    dict(type='mim_mm.FastRandomFlip', prob=0.5),
    dict(type='PackInputs'),
]
