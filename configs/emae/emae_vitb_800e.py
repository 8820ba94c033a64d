"""EMAE, ViT-B/16, K = 4, 800 epochs of ImageNet-1k (Li et al., TPAMI 2024).

    tools/dist_train.sh configs/emae/emae_vitb_800e.py 8

Published: linear 70.4, fine-tune 84.0 (IN-1k top-1); Mask R-CNN 51.4 box AP, 45.7 mask AP.
Batch 4096 = 8 GPUs x 256 images x 2 accumulated, each encoded in all its parts:
8 x 512 in one go is more than 80 GB (estimate of tools/plan.py). Other batches: --auto-scale-lr.
Consistency weight 0.1, ours: the paper's formula, L_whole + L_consistency, has none (emae_vitb_800e_weight1.py). On
CIFAR-10 the larger the weight the worse: 1 costs 7 points of k-NN, 0.1 about half of one
(docs/results/evidence_cifar10.md); at full size nothing was tried.
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
