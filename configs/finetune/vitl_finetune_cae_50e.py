"""Fine-tuning of CAE ViT-L/16 on ImageNet-1k (Chen et al., IJCV 2023, and its script).

    tools/dist_train.sh configs/finetune/vitl_finetune_cae_50e.py 8 --cfg-options init=CKPT

Published: 86.2 after 1600 epochs of pretraining. As vitb_finetune_cae_100e.py but lr 2e-3 for 4096 images, layer decay
0.75, drop path 0.2, 50 epochs. Layer scale is built at 0.1, as the script does; the pretrained values replace it.
Batch 8 x 512; less memory: train_dataloader.batch_size=32 optim_wrapper.accumulative_counts=16.
Cost: not measured here.
"""

_base_ = ['./vitb_finetune_cae_100e.py']

model = dict(backbone=dict(arch='large', drop_path_rate=0.2), head=dict(in_channels=1024))
optim_wrapper = dict(optimizer=dict(lr=2e-3), paramwise_cfg=dict(layer_decay_rate=0.75))
param_scheduler = [
    dict(type='mim_mm.WarmupLR', end=5, convert_to_iter_based=True, like='beit'),
    dict(type='mim_mm.HalfCosineLR', eta_min_ratio=1e-6 / 2e-3, begin=5, convert_to_iter_based=True, like='beit'),
]
train_cfg = dict(max_epochs=50)
