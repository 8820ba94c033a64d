"""EMAE, ViT-B/16, K = 4, 300 epochs of ImageNet-1k (Li et al., TPAMI 2024).

    tools/dist_train.sh configs/emae/emae_vitb_300e.py 8

Published: linear 68.4 (68.2 in the main table), fine-tune 83.8; Mask R-CNN 50.6 box AP, 45.0 mask AP.
Batch 4096 = 8 GPUs x 256 images x 2 accumulated, each encoded in all its parts:
8 x 512 in one go is more than 80 GB (estimate of tools/plan.py). Other batches: --auto-scale-lr.
Consistency weight 1, as in the paper's formula. At small scale (CIFAR-10) it undid the gain over MAE, and 0.1 did not:
until a study at full size decides, --cfg-options model.consistency_weight=0.1 or model.consistency_ramp=40 is
the cautious choice (docs/methods.md).
Cost: 6.3 h on 8 H100 at half of their bf16 peak, by FLOPs (233 GFLOP an image); not measured.
"""

_base_ = './emae_vitb_800e.py'
train_cfg = dict(max_epochs=300)
