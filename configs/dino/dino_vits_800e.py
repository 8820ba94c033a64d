"""DINO, ViT-S/16, 800 epochs of ImageNet-1k (Caron et al., ICCV 2021).

    tools/dist_train.sh configs/dino/dino_vits_800e.py 8

Published: k-NN 74.5, linear 77.0, of the teacher (custom_hooks.0.prefix=teacher.backbone.).
From memory, the arguments are outside the repository: ten small views split at 0.25, batch 1024, temperature 0.04 ->
0.07 over 30 epochs, last layer not normalised. Check them before a paper rests on this recipe.
Batch 1024 = 8 x 128, never accumulated: the centre is a mean over one batch. Other batches: --auto-scale-lr.
Cost: 8.2 h on 8 H100 at half of their bf16 peak, by FLOPs (113 GFLOP an image, all its views); not measured.
"""

_base_ = [
    '../_base_/models/dino_vit.py',
    '../_base_/datasets/imagenet_multi_crop_025.py',
    '../_base_/schedules/dino_pretrain.py',
    '../_base_/default_runtime.py',
]
train_cfg = dict(max_epochs=800)
model = dict(teacher_temp=dict(start=0.04, end=0.07, epochs=30))
default_hooks = dict(checkpoint=dict(interval=10))
