"""Linear probe of ViT-B/16 on ImageNet-1k: iBOT's sweep of 45 rates, class and mean patch token (Zhou et al. 2022).

    tools/dist_train.sh configs/linear/vitb_ibot_100e.py 8 --cfg-options init=CKPT

Published: iBOT ViT-B/16 1600 epochs 79.5 (79.8 with random masking).
As vits_ibot_100e.py but for the feature: n = 1, avgpool_patchtokens = 2 in iBOT's terms, class token and mean patch
token of the last block after the final norm: 1536 values.
Cost: not measured here.
"""

_base_ = ['./vitb_quick_probe.py', '../_base_/datasets/bilinear_crop.py']

rates = [float(f'{factor}e{power}') for power in range(-4, 1) for factor in range(1, 10)]
model = dict(head=dict(blocks=[1], pooling=['cls_mean'], norm=[False], lrs=rates))
train_dataloader = dict(
    sampler=dict(_delete_=True, type='DefaultSampler', shuffle=True), dataset=dict(pipeline={{_base_.bilinear_crop}})
)
param_scheduler = dict(_delete_=True, type='CosineAnnealingLR', eta_min=0.0, by_epoch=True)
train_cfg = dict(_delete_=True, by_epoch=True, max_epochs=100, val_interval=1)
default_hooks = dict(checkpoint=dict(by_epoch=True, interval=1))
log_processor = dict(by_epoch=True)
custom_hooks = [
    dict(type='mim_mm.LoadPretrainedHook', checkpoint=None, prefix='backbone.', target='backbone', complete=True),
    dict(type='mim_mm.ClassCountHook'),
    dict(type='mim_mm.ProbeReportHook'),
]
