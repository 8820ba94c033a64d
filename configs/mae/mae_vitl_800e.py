"""MAE, ViT-L/16, 800 epochs of ImageNet-1k (He et al., CVPR 2022).

    tools/dist_train.sh configs/mae/mae_vitl_800e.py 8

Published: fine-tune 85.5 (MAE release); mmpretrain linear 73.7, fine-tune 85.4.
Batch 4096 = 8 x 512. Other batches: --auto-scale-lr.
Cost: 9 h on 8 H100 at half of their bf16 peak, by FLOPs (125 GFLOP an image); not measured.
"""

_base_ = './mae_vitb_800e.py'
model = dict(backbone=dict(arch='large'))
