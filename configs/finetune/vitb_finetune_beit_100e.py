"""Fine-tuning of BEiT ViT-B/16 on ImageNet-1k, for encoders of configs/beit (Bao et al., ICLR 2022).

    tools/dist_train.sh configs/finetune/vitb_finetune_beit_100e.py 8 --cfg-options init=CKPT

Published: 83.2 after 800 epochs of pretraining (mmpretrain, 300 epochs: 83.1). Mean of the patch tokens, a fresh norm,
layer scale 0.1, one table of relative positions a block, each starting from the pretraining's shared one. AdamW, lr
4e-3 for 1024 images, layer decay 0.65, drop path 0.1, 100 epochs, warm-up 20, cosine to 1e-6. mean = std = 0.5, as
released; configs/beit pretrains with ImageNet's (as mmpretrain), and to stay with those:
data_preprocessor.mean=[123.675,116.28,103.53] data_preprocessor.std=[58.395,57.12,57.375].
Differences from mmpretrain: the head starts at 0.001 of its size, the noise of erasing has mean 0.5; bf16.
Batch 8 x 128.
Cost: not measured here.
"""

_base_ = [
    '../_base_/models/beitb_finetune.py',
    '../_base_/datasets/imagenet_finetune_half.py',
    '../_base_/schedules/finetune_adamw.py',
]
default_scope = 'mmpretrain'

train_dataloader = dict(batch_size=128)
val_dataloader = dict(batch_size=128)
param_scheduler = [
    dict(type='mim_mm.WarmupLR', end=20, convert_to_iter_based=True, like='beit'),
    dict(type='mim_mm.HalfCosineLR', eta_min_ratio=1e-6 / 4e-3, begin=20, convert_to_iter_based=True, like='beit'),
]
train_cfg = dict(by_epoch=True, max_epochs=100, val_interval=1)
