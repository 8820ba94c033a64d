"""Fine-tuning of ViT-L/16 on ImageNet-1k as MAE does (He et al. 2022), sharded (FSDP); see vitl_finetune_50e.py.

    tools/dist_train.sh configs/finetune/vitl_finetune_50e_fsdp.py 8 --cfg-options init=CKPT

Published: MAE ViT-L 1600 epochs 85.9. For small GPUs; where vitl_finetune_50e.py fits, it is faster.
Batch 8 x 128. Other batches: --auto-scale-lr.
Cost: 2.2 h on 8 H100 at half of their bf16 peak, by FLOPs (369 GFLOP an image, a third more recomputed); not measured.
"""

_base_ = ['./vitl_finetune_50e.py', '../_base_/fsdp.py']
