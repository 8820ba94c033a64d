"""DINO, ViT-S/16, 300 epochs of ImageNet-1k (Caron et al., ICCV 2021): the boosted command of the release.

    tools/dist_train.sh configs/dino/dino_vits_300e.py 8

Published: k-NN 73.3, linear 76.0, of the teacher (custom_hooks.0.prefix=teacher.backbone.).
Batch 1024 = 8 x 128, never accumulated: the centre is a mean over one batch. Other batches: --auto-scale-lr.
Cost: 3.1 h on 8 H100 at half of their bf16 peak, by FLOPs (113 GFLOP an image, all its views); not measured.
"""

_base_ = [
    '../_base_/models/dino_vit.py',
    '../_base_/datasets/imagenet_multi_crop.py',
    '../_base_/schedules/dino_pretrain.py',
    '../_base_/default_runtime.py',
]
train_cfg = dict(max_epochs=300)
train_dataloader = dict(batch_size=128)
model = dict(teacher_temp=dict(start=0.04, end=0.07, epochs=30))
