"""Fine-tuning of SimMIM ViT-B/16 on ImageNet-1k, for encoders of configs/simmim (Xie et al., CVPR 2022).

    tools/dist_train.sh configs/finetune/vitb_finetune_simmim_100e.py 8 --cfg-options init=CKPT

Published: 83.8 after 800 epochs of pretraining. BEiT's ViT without absolute positions, the shared table of relative
ones copied to every block, layer scale 0.1, mean of the patches and a fresh norm. lr 5e-3 for 2048 images, layer decay
0.65, drop path 0.1, 100 epochs, warm-up 20 from 1e-6, cosine to 1e-6 (both the same for all layers), gradients clipped
at 5; ImageNet's mean. As in timm, which the release uses, the cosine counts from the start of training: after the
warm-up the rate drops to 0.905 of 5e-3.
Batch 8 x 256; less memory: train_dataloader.batch_size=128 optim_wrapper.accumulative_counts=2.
Cost: not measured here.
"""

_base_ = [
    '../_base_/models/beitb_finetune.py',
    '../_base_/datasets/imagenet_finetune.py',
    '../_base_/schedules/finetune_adamw.py',
]
default_scope = 'mmpretrain'

train_dataloader = dict(batch_size=256)
val_dataloader = dict(batch_size=128)
optim_wrapper = dict(optimizer=dict(lr=5e-3), clip_grad=dict(max_norm=5.0))
param_scheduler = [
    dict(type='mim_mm.WarmupLR', start_factor=2.5e-7 / 1.25e-3, end=20, convert_to_iter_based=True, like='timm'),
    dict(type='mim_mm.HalfCosineLR', eta_min_ratio=2.5e-7 / 1.25e-3, begin=20, convert_to_iter_based=True, like='timm'),
]
train_cfg = dict(by_epoch=True, max_epochs=100, val_interval=1)
auto_scale_lr = dict(base_batch_size=2048)
