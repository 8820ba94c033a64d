"""Fine-tuning of ViT-L/16 on ImageNet-1k as iBOT does (Zhou et al., ICLR 2022).

    tools/dist_train.sh configs/finetune/vitl_finetune_ibot_50e.py 8 --cfg-options init=CKPT

Published: iBOT ViT-L 84.8, the best of a sweep of learning rates around that code's default of 4e-3 for 1024 images.
As vitb_finetune_ibot_100e.py but layer decay 0.75, drop path 0.4, 50 epochs, warm-up 5, test images bilinear.
Batch 8 x 128; iBOT's own split: train_dataloader.batch_size=64 optim_wrapper.accumulative_counts=2.
Cost: not measured here.
"""

_base_ = ['./vitl_finetune_50e.py', '../_base_/datasets/bilinear_test.py']

model = dict(backbone=dict(drop_path_rate=0.4, out_type='cls_token', final_norm=True))
param_scheduler = [
    dict(type='mim_mm.WarmupLR', end=5, convert_to_iter_based=True, like='beit'),
    dict(type='mim_mm.HalfCosineLR', eta_min_ratio=1e-6 / 4e-3, begin=5, convert_to_iter_based=True, like='beit'),
]
val_dataloader = dict(dataset=dict(pipeline={{_base_.bilinear_test}}))
test_dataloader = dict(dataset=dict(pipeline={{_base_.bilinear_test}}))
