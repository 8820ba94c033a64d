"""MAE, ViT-S/16, 300 epochs of ImageNet-1k (He et al., CVPR 2022).

    tools/dist_train.sh configs/mae/mae_vits_300e.py 8

Published: none for this size.
Batch 4096 = 8 x 512. Other batches: --auto-scale-lr.
Cost: 1.05 h on 8 H100 at half of their bf16 peak, by FLOPs (39 GFLOP an image); not measured.
"""

_base_ = './mae_vitb_800e.py'
train_cfg = dict(max_epochs=300)
model = dict(backbone=dict(arch='deit-small'))
