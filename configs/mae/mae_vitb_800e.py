"""MAE, ViT-B/16, 800 epochs of ImageNet-1k (He et al., CVPR 2022).

    tools/dist_train.sh configs/mae/mae_vitb_800e.py 8

Published: linear 64.4, fine-tune 83.4 (as quoted by EMAE); mmpretrain 65.1 / 83.3.
Batch 4096 = 8 x 512. Other batches: --auto-scale-lr.
Cost: 4.2 h on 8 H100 at half of their bf16 peak, by FLOPs (59 GFLOP an image); not measured.
"""

_base_ = [
    '../_base_/models/mae_vit.py',
    '../_base_/datasets/imagenet_pretrain.py',
    '../_base_/schedules/mae_pretrain.py',
    '../_base_/default_runtime.py',
]
default_hooks = dict(checkpoint=dict(interval=20))
