"""Fine-tuning of ViT-H/14 on ImageNet-1k as MAE does (He et al. 2022), sharded (FSDP); see vith_finetune_50e.py.

    tools/dist_train.sh configs/finetune/vith_finetune_50e_fsdp.py 8 --cfg-options init=CKPT

Published: MAE ViT-H 1600 epochs 86.9.
Batch 8 x 128. Other batches: --auto-scale-lr.
Cost: 6 h on 8 H100 at half of their bf16 peak, by FLOPs (1004 GFLOP an image, a third more recomputed); not measured.
"""

_base_ = ['./vith_finetune_50e.py', '../_base_/fsdp.py']
