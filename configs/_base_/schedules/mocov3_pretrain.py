# MoCo v3's optimisation of ViTs: AdamW, lr 1.5e-4 x batch / 256, 40 epochs of warm-up, cosine to 0, weight decay 0.1 on
# every parameter that trains, biases and norms too; nothing is clipped.
base_batch = 4096
auto_scale_lr = dict(base_batch_size=base_batch)
optim_wrapper = dict(
    type='AutocastOptimWrapper',
    dtype='bfloat16',
    optimizer=dict(type='AdamW', lr=1.5e-4 * base_batch / 256, betas=(0.9, 0.999), weight_decay=0.1, fused=True),
    constructor='LayerDecayConstructor',
    paramwise_cfg=dict(no_decay=[]),
)

train_cfg = dict(by_epoch=True, max_epochs=300)
param_scheduler = [
    dict(type='WarmupLR', by_epoch=True, end=40, convert_to_iter_based=True),
    dict(type='HalfCosineLR', by_epoch=True, begin=40, convert_to_iter_based=True),
]
custom_hooks = [
    dict(type='CollapseHook', interval=100),
]
