"""I-JEPA, ViT-H/16 at 448 px, 300 epochs of ImageNet-1k (Assran et al., CVPR 2023; in1k_vith16-448_ep300.yaml).

    tools/dist_train.sh configs/ijepa/ijepa_vith_448px_300e.py 8 --cfg-options optim_wrapper.accumulative_counts=16 \
        train_dataloader.batch_size=16

Published: linear 81.1 (from memory), of the teacher.
As ijepa_vith_300e.py on 28 x 28 patches of 16 px. Batch 2048: the release has 128 GPUs with 16 each. Accumulated
gradients are the same method here; contexts are cut to the shortest of 16, as released.
Cost: 66 h on 8 H100 at half of their bf16 peak, by FLOPs (2444 GFLOP an image); not measured.
"""

_base_ = './ijepa_vith_300e.py'
model = dict(backbone=dict(img_size=448, patch_size=16))
train_pipeline = [
    dict(type='LazyLoadImageFromFile'),
    dict(type='FastRandomResizedCrop', scale=448, crop_ratio_range=(0.3, 1.0), interpolation='bilinear'),
    dict(type='PackImage'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
