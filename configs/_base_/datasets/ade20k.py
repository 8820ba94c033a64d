# ADE20K of MIT's scene parsing challenge (20,210 and 2,000 images, 150 classes), 512 px. ADE20K_ROOT sets the root:
#   <root>/images/{training,validation}/*.jpg, <root>/annotations/{training,validation}/*.png
# Annotations number the classes from 1; 0, "other", becomes 255, which is neither learnt nor counted. Images are scaled
# by 0.5 to 2 of a short side of 512, cropped (again, up to ten times, where one class fills three quarters) and padded
# by the data preprocessor. Tests: short side 512, sliding windows, compared at the size of the file.
dataset_type = 'ADE20KDataset'
data_root = r"""{{$ADE20K_ROOT:data/ade20k}}/"""

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='RandomResize', scale=(2048, 512), ratio_range=(0.5, 2.0), keep_ratio=True),
    dict(type='RandomCrop', crop_size=(512, 512), cat_max_ratio=0.75),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(2048, 512), keep_ratio=True),
    dict(type='LoadAnnotations'),  # behind Resize: the truth keeps the size of its file
    dict(type='PackSegInputs'),
]
train_dataloader = dict(
    batch_size=2,
    num_workers=4,
    persistent_workers=True,
    pin_memory=True,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        data_prefix=dict(img_path='images/training', seg_map_path='annotations/training'),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=1,  # images differ in size
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        data_prefix=dict(img_path='images/validation', seg_map_path='annotations/validation'),
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='mim_mm.ExactIoUMetric', iou_metrics=['mIoU'])
test_evaluator = val_evaluator
