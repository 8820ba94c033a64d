"""Fine-tuning of data2vec 2.0 ViT-L/16 on ImageNet-1k, for encoders of configs/data2vec/data2vec2_* (fairseq's code).

    tools/dist_train.sh configs/finetune/vitl_finetune_data2vec2_50e.py 8 --cfg-options init=CKPT

Published: 86.8 after 150 epochs of pretraining.
As vitb_finetune_data2vec2_100e.py but for lr 5e-4, layer decay 0.75, drop path 0.2, gradients clipped at 4 and 125,200
steps (50 epochs), from and to 1e-7: mae_imagenet_large_clean.yaml. Batch 8 x 64.
Cost: not measured here.
"""

_base_ = ['./vitb_finetune_data2vec2_100e.py']

model = dict(backbone=dict(arch='large', drop_path_rate=0.2), head=dict(in_channels=1024))
optim_wrapper = dict(optimizer=dict(lr=5e-4), clip_grad=dict(max_norm=4.0), paramwise_cfg=dict(layer_decay_rate=0.75))
warmup = 16000 / 2502
param_scheduler = [
    dict(type='mim_mm.WarmupLR', start_factor=2e-4, end=warmup, convert_to_iter_based=True),
    dict(type='mim_mm.HalfCosineLR', eta_min=1e-7, begin=warmup, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=50)
