"""MAE, ViT-H/14, 1600 epochs of ImageNet-1k (He et al., CVPR 2022), sharded (FSDP).

    tools/dist_train.sh configs/mae/mae_vith_1600e_fsdp.py 8

Published: linear 76.6, fine-tune 86.9. The optimisation of mae_vith_1600e.py, spread differently; blocks recomputed.
Batch 4096 = 8 x 512. Other batches: --auto-scale-lr.
Cost: 56 h on 8 H100 at half of their bf16 peak, by FLOPs (291 GFLOP an image, a third more recomputed); not measured.
"""

_base_ = ['./mae_vith_1600e.py', '../_base_/fsdp.py']
train_dataloader = dict(batch_size=512)
optim_wrapper = dict(accumulative_counts=1)
