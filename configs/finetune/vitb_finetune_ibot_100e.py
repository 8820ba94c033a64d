"""Fine-tuning of ViT-B/16 on ImageNet-1k as iBOT does (Zhou et al., ICLR 2022).

    tools/dist_train.sh configs/finetune/vitb_finetune_ibot_100e.py 8 --cfg-options init=CKPT

Published: iBOT ViT-B 84.0, the best of a sweep of learning rates; 4e-3 is that code's default for 1024 images (sweep:
optim_wrapper.optimizer.lr). Class token after the pretrained final norm, layer decay 0.65, drop path 0.2, 100 epochs,
warm-up 20, test images resized bilinearly; all else is the block of vitb_finetune_100e.py.
Batch 8 x 128.
Cost: not measured here.
"""

_base_ = ['./vitb_finetune_100e.py', '../_base_/datasets/bilinear_test.py']

model = dict(backbone=dict(drop_path_rate=0.2, out_type='cls_token', final_norm=True))
optim_wrapper = dict(optimizer=dict(lr=4e-3))
param_scheduler = [
    dict(type='mim_mm.WarmupLR', end=20, convert_to_iter_based=True, like='beit'),
    dict(type='mim_mm.HalfCosineLR', eta_min_ratio=1e-6 / 4e-3, begin=20, convert_to_iter_based=True, like='beit'),
]
val_dataloader = dict(dataset=dict(pipeline={{_base_.bilinear_test}}))
test_dataloader = dict(dataset=dict(pipeline={{_base_.bilinear_test}}))
