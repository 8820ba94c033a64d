"""EMAE, ViT-B/16, K = 14, 800 epochs of ImageNet-1k (Li et al., TPAMI 2024).

    tools/dist_train.sh configs/emae/emae_vitb_800e_k14.py 8

Published: linear 66.7 (K table, row f).
Batch 4096 = 8 GPUs x 64 images x 8 accumulated, each encoded in all its parts:
8 x 512 in one go is more than 80 GB (estimate of tools/plan.py). Other batches: --auto-scale-lr.
Consistency weight 0.1, ours: the paper's formula, L_whole + L_consistency, has none (emae_vitb_800e_weight1.py). On
CIFAR-10 the larger the weight the worse: 1 costs 7 points of k-NN, 0.1 about half of one
(docs/results/evidence_cifar10.md); at full size nothing was tried.
Cost: about 2.4 times K = 4 by FLOPs, since every part is decoded whole; not measured.
"""

_base_ = './emae_vitb_800e.py'
model = dict(masker=dict(num_parts=14))
train_dataloader = dict(batch_size=64)
optim_wrapper = dict(accumulative_counts=8)
