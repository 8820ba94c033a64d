"""Demo, fine-tuning on single digits: the whole encoder learns; mean of its tokens, one linear layer.

python tools/train.py configs/demo/finetune.py --cfg-options init=CKPT
"""

_base_ = ['./linear.py']
epochs = 16

model = dict(backbone=dict(frozen_stages=-1), neck=None)
optim_wrapper = dict(optimizer=dict(lr=1e-3, weight_decay=0.05), clip_grad=dict(max_norm=1.0))
param_scheduler = [
    dict(type='mim_mm.WarmupLR', start_factor=0.01, by_epoch=True, end=2, convert_to_iter_based=True),
    dict(type='mim_mm.HalfCosineLR', by_epoch=True, begin=2, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=epochs, val_interval=4)
default_hooks = dict(checkpoint=dict(interval=epochs))
