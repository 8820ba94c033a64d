"""Fine-tuning of ViT-B/16 on ImageNet-1k as CMAE does for its 1600-epoch encoder (Huang et al., TPAMI 2023).

    tools/dist_train.sh configs/finetune/vitb_finetune_cmae_long_100e.py 8 --cfg-options init=CKPT

Published: CMAE ViT-B 1600 epochs 84.7. As vitb_finetune_cmae_100e.py with lr 1e-3 for 1024 images (base lr 2.5e-4).
Batch 8 x 128.
Cost: not measured here.
"""

_base_ = ['./vitb_finetune_cmae_100e.py']

optim_wrapper = dict(optimizer=dict(lr=1e-3))
