"""MAE, ViT-H/14, 1600 epochs of ImageNet-1k (He et al., CVPR 2022).

    tools/dist_train.sh configs/mae/mae_vith_1600e.py 8

Published: fine-tune 86.9 (86.93 in the release's notes), linear 76.6 (as quoted by EMAE). Patch 14, so 256
patches, 64 of them visible; everything else as for ViT-B.
Batch 4096 = 8 GPUs x 256 images x 2 accumulated:
8 x 512 in one go is more than 80 GB (estimate of tools/plan.py). Other batches: --auto-scale-lr.
mae_vith_1600e_fsdp.py is the same, sharded.
Cost: 42 h on 8 H100 at half of their bf16 peak, by FLOPs (291 GFLOP an image); not measured.
"""

_base_ = './mae_vitb_800e.py'
model = dict(backbone=dict(arch='huge', patch_size=14))
train_cfg = dict(max_epochs=1600)
train_dataloader = dict(batch_size=256)
optim_wrapper = dict(accumulative_counts=2)
