"""MAE, ViT-L/16, 800 epochs of ImageNet-1k (He et al., CVPR 2022), sharded (FSDP).

    tools/dist_train.sh configs/mae/mae_vitl_800e_fsdp.py 8

Published: fine-tune 85.5 (MAE release); mmpretrain linear 73.7, fine-tune 85.4. For small GPUs; where mae_vitl_800e.py
fits, it is faster.
Batch 4096 = 8 x 512. Other batches: --auto-scale-lr.
Cost: 12 h on 8 H100 at half of their bf16 peak, by FLOPs (125 GFLOP an image, a third more recomputed); not measured.
"""

_base_ = ['./mae_vitl_800e.py', '../_base_/fsdp.py']
