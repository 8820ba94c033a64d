"""EMAE, ViT-H/14, K = 4, 800 epochs of ImageNet-1k, sharded (FSDP): the EMAE recipe at MAE's largest size.

    tools/dist_train.sh configs/emae/emae_vith_800e_fsdp.py 8

Published: nothing for EMAE at this size (Li et al., TPAMI 2024, stop at ViT-L); MAE ViT-H/14 76.6 linear, 86.9 tuned.
Four parts of 64 of the 256 patches.
Batch 4096 = 8 x 512 images, each encoded in all its parts. Other batches: --auto-scale-lr.
Consistency weight 0.1, ours: the paper's formula, L_whole + L_consistency, has none (emae_vitb_800e_weight1.py). On
CIFAR-10 the larger the weight the worse: 1 costs 7 points of k-NN, 0.1 about half of one
(docs/results/evidence_cifar10.md); at full size nothing was tried.
Cost: 111 h on 8 H100 at half of their bf16 peak, by FLOPs (1162 GFLOP an image, a third more recomputed); not measured.
"""

_base_ = ['./emae_vitb_800e.py', '../_base_/fsdp.py']
model = dict(backbone=dict(arch='huge', patch_size=14))
train_dataloader = dict(batch_size=512)
optim_wrapper = dict(accumulative_counts=1)
