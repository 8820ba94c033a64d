"""SimMIM, ViT-B/16 at 224 px, 800 epochs of ImageNet-1k (Xie et al., CVPR 2022).

    tools/dist_train.sh configs/simmim/simmim_vitb_800e.py 8

Published: fine-tune 83.8 (SimMIM release); linear 56.7 (as quoted by EMAE).
Batch 2048 = 8 x 256. Other batches: --auto-scale-lr.
Cost: 7.6 h on 8 H100 at half of their bf16 peak, by FLOPs (106 GFLOP an image); not measured.
"""

_base_ = [
    '../_base_/models/simmim_vit.py',
    '../_base_/datasets/imagenet_simmim.py',
    '../_base_/schedules/simmim_pretrain.py',
    '../_base_/default_runtime.py',
]
# The release decays the ViT's mask token, unlike Swin's.
optim_wrapper = dict(paramwise_cfg=dict(no_decay=['cls_token', 'pos_embed']))
default_hooks = dict(checkpoint=dict(interval=20))
