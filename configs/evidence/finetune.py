"""Evidence study, fine-tuning on a fifth of CIFAR-10's labels: the whole encoder learns; mean of its tokens, one layer.

    python tools/train.py configs/evidence/finetune.py --data-root CIFAR --cfg-options init=CKPT

10,000 of 50,000 images, the same for all arms: with all labels so small an encoder learns nearly as much without
pretraining.
"""

_base_ = ['./linear.py']
epochs = 8

model = dict(backbone=dict(frozen_stages=-1), neck=None)
train_dataloader = dict(
    batch_size=64,
    dataset=dict(type='mim_mm.LowShotImages', fraction=0.2, seed=0),
)
optim_wrapper = dict(optimizer=dict(lr=1e-3, weight_decay=0.05), clip_grad=dict(max_norm=1.0))
param_scheduler = [
    dict(type='mim_mm.WarmupLR', by_epoch=True, end=1, convert_to_iter_based=True),
    dict(type='mim_mm.HalfCosineLR', by_epoch=True, begin=1, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=epochs, val_interval=epochs)
default_hooks = dict(checkpoint=dict(interval=epochs))
