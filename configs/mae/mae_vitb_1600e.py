"""MAE, ViT-B/16, 1600 epochs of ImageNet-1k (He et al., CVPR 2022).

    tools/dist_train.sh configs/mae/mae_vitb_1600e.py 8

Published: linear 67.8, fine-tune 83.6; Mask R-CNN 50.4 box AP, 44.9 mask AP.
Batch 4096 = 8 x 512. Other batches: --auto-scale-lr.
Cost: 8.4 h on 8 H100 at half of their bf16 peak, by FLOPs (59 GFLOP an image); not measured.
"""

_base_ = './mae_vitb_800e.py'
train_cfg = dict(max_epochs=1600)
