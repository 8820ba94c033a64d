# Class-per-folder data for fine-tuning: <root>/train/<class>/*, <root>/val/<class>/*. IMAGENET_ROOT sets the root.
# The pipelines are mmpretrain's: bicubic crop, flip, RandAugment rand-m9-mstd0.5-inc1, random erasing 0.25; resize 256.
# Reading, crop and flip are ours: the same boxes and, within rounding, the same pixels; so is erasing, by noise behind
# the normalisation, as in the releases.
_base_ = 'mmpretrain::_base_/datasets/imagenet_bs64_swin_224.py'

data_root = r"""{{$IMAGENET_ROOT:data/imagenet}}"""
train_pipeline = [
    dict(type='mim_mm.LazyLoadImageFromFile'),
    dict(type='mim_mm.FastRandomResizedCrop', scale=224, interpolation='bicubic'),
    dict(type='mim_mm.FastRandomFlip', prob=0.5),
    *_base_.train_pipeline[3:-2],  # noqa: F821
    dict(type='mim_mm.RandomErasingBox', erase_prob=0.25, min_area_ratio=0.02, max_area_ratio=1 / 3),
    dict(type='PackInputs', meta_keys=('img_path', 'erase_box')),
]
# Classes are the training folders, sorted: ImageNet's order. val is numbered by them too (CustomDataset: by its own).
# One copy of all images and one of all labels, which the device is not waited for.
data_preprocessor = dict(type='mim_mm.LabelledPreprocessor')
# A core reads about 310 images/s and an H100 takes 3,300: 11 workers a GPU (docs/plan.md).
train_dataloader = dict(
    drop_last=True,
    num_workers=12,
    collate_fn=dict(type='mim_mm.collate_labelled'),
    pin_memory=True,
    persistent_workers=True,
    dataset=dict(
        _delete_=True,
        type='mim_mm.ClassFolders',
        data_root=data_root,
        data_prefix='train',
        pipeline=train_pipeline,
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
        pipeline=_base_.test_pipeline,  # noqa: F821
    ),
)
test_dataloader = val_dataloader
# What processes found goes over the network: nodes need no folder in common.
val_evaluator = dict(collect_device='gpu')
test_evaluator = dict(collect_device='gpu')
