"""Fine-tuning of BEiT ViT-L/16 on ImageNet-1k (Bao et al., ICLR 2022).

    tools/dist_train.sh configs/finetune/vitl_finetune_beit_50e.py 8 --cfg-options init=CKPT

Published: 85.2 after 800 epochs of pretraining. As vitb_finetune_beit_100e.py but lr 1e-3 for 1024 images, layer decay
0.75, drop path 0.2, 50 epochs, warm-up 5, layer scale 1e-5. The release gives these values
for an encoder of ImageNet-22k.
Batch 8 x 128; less memory: train_dataloader.batch_size=32 optim_wrapper.accumulative_counts=4.
Cost: not measured here.
"""

_base_ = ['./vitb_finetune_beit_100e.py']

model = dict(backbone=dict(arch='large', drop_path_rate=0.2, layer_scale_init_value=1e-5), head=dict(in_channels=1024))
optim_wrapper = dict(optimizer=dict(lr=1e-3), paramwise_cfg=dict(layer_decay_rate=0.75))
param_scheduler = [
    dict(type='mim_mm.WarmupLR', end=5, convert_to_iter_based=True, like='beit'),
    dict(type='mim_mm.HalfCosineLR', eta_min_ratio=1e-6 / 1e-3, begin=5, convert_to_iter_based=True, like='beit'),
]
train_cfg = dict(max_epochs=50)
