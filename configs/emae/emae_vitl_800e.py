"""EMAE, ViT-L/16, K = 4, 800 epochs of ImageNet-1k (Li et al., TPAMI 2024).

    tools/dist_train.sh configs/emae/emae_vitl_800e.py 8

Published: linear 76.7, fine-tune 86.3 (IN-1k top-1).
Batch 4096 = 8 x 512 images, each encoded in all its parts. Other batches: --auto-scale-lr, or accumulate with
--cfg-options optim_wrapper.accumulative_counts=2 train_dataloader.batch_size=256.
Cost: 36 h on 8 H100 at half of their bf16 peak, by FLOPs (495 GFLOP an image); not measured.
Last run: never at full size; a few iterations of a shrunken model by tests/test_dist_train.py.
"""

_base_ = './emae_vitb_800e.py'
model = dict(backbone=dict(arch='large'))
