"""MAE, ViT-B/16, 300 epochs of ImageNet-1k (He et al., CVPR 2022).

    tools/dist_train.sh configs/mae/mae_vitb_300e.py 8

Published: linear 61.5, fine-tune 82.9 (as quoted by EMAE); mmpretrain 60.8 / 83.1.
Batch 4096 = 8 x 512. Other batches: --auto-scale-lr.
Cost: 1.6 h on 8 H100 at half of their bf16 peak, by FLOPs (59 GFLOP an image); not measured.
"""

_base_ = './mae_vitb_800e.py'
train_cfg = dict(max_epochs=300)
