"""Fine-tuning of ViT-H/14 on ImageNet-1k: MAE's protocol (He et al. 2022, appendix A.1; rates of MAE's FINETUNE.md).

    tools/dist_train.sh configs/finetune/vith_finetune_50e.py 8 --cfg-options init=CKPT

Published: MAE ViT-H 1600 epochs 86.9 (86.93; mmpretrain's recipe 86.9). As ViT-L but patch 14, drop path 0.3: lr 4e-3
for 1024 images, layer decay 0.75, 50 epochs. bf16 has the range of fp32, so the NaN that MAE's notes report for ViT-H
in fp16 has no cause here.
Batch 8 x 128; less memory: train_dataloader.batch_size=16 optim_wrapper.accumulative_counts=8.
Cost: not measured here.
"""

_base_ = ['./vitl_finetune_50e.py']

model = dict(backbone=dict(arch='huge', patch_size=14, drop_path_rate=0.3), head=dict(in_channels=1280))
