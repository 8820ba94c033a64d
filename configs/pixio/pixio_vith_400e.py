"""Pixio, ViT-H/16, 400 epochs of ImageNet-21k: MAE with a deep decoder, large masks, 8 class tokens (Yang et al. 2025).

    IMAGENET_ROOT=IMAGENET21K tools/dist_train.sh configs/pixio/pixio_vith_400e.py 8

Published: none for ImageNet; ViT-H/16 on 2 billion web images, frozen, with a DPT head: NYUv2 95.5 and KITTI 96.7
(delta 1), ADE20K 53.6 mIoU (arXiv 2512.15715). Settings are those of the release's recipe for ImageNet
(pretrain_pixio_vith16_imagenet.sh): 256 px, 12 of 16 cells of 4 x 4 patches hidden, decoder of 32 blocks of width 512,
learnt positions in both, drop path 0.4, blr 2.5e-5 x 8192 / 256 = 8e-4, warm-up 40, cosine to 0, crops of 0.2 to 1
without flips. It says 400 epochs of 1605 iterations, which is ImageNet-21k once an epoch (13.15 M images in any
folders below train/); on ImageNet-1k an epoch has 156.
Batch 8192 = 8 GPUs x 64 images x 16 accumulated. Other batches: --auto-scale-lr.
Everything downstream: model.backbone.type=mim_mm.RegisterViT model.backbone.num_cls_tokens=8, patch 16, arch huge.
Cost: 166 h on 8 H100 at half of their bf16 peak, by FLOPs (449 GFLOP an image); not measured.
"""

_base_ = ['../mae/mae_vitb_800e.py']

base_batch = 8192
auto_scale_lr = dict(base_batch_size=base_batch)
model = dict(
    backbone=dict(type='RegisterViT', arch='huge', img_size=256, patch_size=16, num_cls_tokens=8, drop_path_rate=0.4),
    masker=dict(_delete_=True, type='CellMasking', masker=dict(type='RandomMasking', ratio=0.75), cell=4),
    decoder=dict(depth=32, positions='learned'),
    pos_embed='learned',
)
train_pipeline = [
    dict(type='LazyLoadImageFromFile'),
    dict(type='FastRandomResizedCrop', scale=256, crop_ratio_range=(0.2, 1.0), interpolation='bicubic'),
    dict(type='PackImage'),
]
train_dataloader = dict(batch_size=64, dataset=dict(pipeline=train_pipeline))
optim_wrapper = dict(accumulative_counts=16, optimizer=dict(lr=2.5e-5 * base_batch / 256))
train_cfg = dict(max_epochs=400)
