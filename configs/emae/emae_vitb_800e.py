"""EMAE, ViT-B/16, K = 4, 800 epochs of ImageNet-1k (Li et al., TPAMI 2024).

    tools/dist_train.sh configs/emae/emae_vitb_800e.py 8

Published: linear 70.4, fine-tune 84.0 (IN-1k top-1); Mask R-CNN 51.4 box AP, 45.7 mask AP.
Batch 4096 = 8 GPUs x 256 images x 2 accumulated, each encoded in all its parts:
8 x 512 in one go is more than 80 GB (estimate of tools/plan.py). Other batches: --auto-scale-lr.
Consistency weight 1, as in the paper's formula. At small scale (CIFAR-10) it undid the gain over MAE, and 0.1 did not:
until a study at full size decides, --cfg-options model.consistency_weight=0.1 or model.consistency_ramp=40 is
the cautious choice (docs/methods.md).
Cost: 17 h on 8 H100 at half of their bf16 peak, by FLOPs (233 GFLOP an image); not measured.
"""

_base_ = [
    '../_base_/models/emae_vit.py',
    '../_base_/datasets/imagenet_pretrain.py',
    '../_base_/schedules/mae_pretrain.py',
    '../_base_/default_runtime.py',
]
default_hooks = dict(checkpoint=dict(interval=20))
train_dataloader = dict(batch_size=256)
optim_wrapper = dict(accumulative_counts=2)
