# Class-per-folder data for linear probing: <root>/train/<class>/*, <root>/val/<class>/*. IMAGENET_ROOT sets the root.
# mmpretrain's base crops bilinearly; the published protocols crop bicubically (train and test).
_base_ = 'mmpretrain::_base_/datasets/imagenet_bs32_pil_resize.py'

data_root = r"""{{$IMAGENET_ROOT:data/imagenet}}"""
train_pipeline = [
    # Same boxes and, within rounding, same pixels as LoadImageFromFile and mmpretrain's RandomResizedCrop by Pillow.
    dict(type='mim_mm.LazyLoadImageFromFile'),
    dict(type='mim_mm.FastRandomResizedCrop', scale=224, interpolation='bicubic'),
    dict(type='mim_mm.FastRandomFlip', prob=0.5),
    dict(type='PackInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='ResizeEdge', scale=256, edge='short', backend='pillow', interpolation='bicubic'),
    dict(type='CenterCrop', crop_size=224),
    dict(type='PackInputs'),
]
# Classes are the training folders, sorted: ImageNet's order. val is numbered by them too (CustomDataset: by its own).
# One copy of all images and one of all labels, which the device is not waited for.
data_preprocessor = dict(type='mim_mm.LabelledPreprocessor')
# A core reads about 520 images/s and an H100 takes 11,000: 22 workers a GPU, where it has as many cores (docs/plan.md).
train_dataloader = dict(
    drop_last=True,
    num_workers=12,
    collate_fn=dict(type='mim_mm.collate_labelled'),
    pin_memory=True,
    persistent_workers=True,
    dataset=dict(
        _delete_=True, type='mim_mm.ClassFolders', data_root=data_root, data_prefix='train', pipeline=train_pipeline
    ),
)
val_dataloader = dict(
    pin_memory=True,
    persistent_workers=True,
    dataset=dict(
        _delete_=True,
        type='mim_mm.ClassFolders',
        data_root=data_root,
        data_prefix='val',
        classes_from='train',
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
# What processes found goes over the network: nodes need no folder in common.
val_evaluator = dict(collect_device='gpu')
test_evaluator = dict(collect_device='gpu')
