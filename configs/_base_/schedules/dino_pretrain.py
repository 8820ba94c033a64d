# Optimisation of DINO, iBOT and AttMask: AdamW, lr 5e-4 x batch / 256, cosine to 1e-6, weight decay 0.04 -> 0.4 without
# warm-up, each gradient clipped by itself at 3, the last layer of the head fixed in the first epoch. Only
# one-dimensional parameters and biases escape weight decay.
base_batch = 1024
auto_scale_lr = dict(base_batch_size=base_batch)
optim_wrapper = dict(
    type='AutocastOptimWrapper',
    dtype='bfloat16',
    optimizer=dict(type='AdamW', lr=5e-4 * base_batch / 256, betas=(0.9, 0.999), weight_decay=0.04, fused=True),
    clip_grad=dict(type='tensor', max_norm=3.0),
    constructor='LayerDecayConstructor',
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0, flat_decay_mult=0.0, no_decay=[]),
)

train_cfg = dict(by_epoch=True, max_epochs=800)
param_scheduler = [
    dict(type='WarmupLR', by_epoch=True, end=10, convert_to_iter_based=True, like='beit'),
    dict(type='HalfCosineLR', eta_min=1e-6, by_epoch=True, begin=10, convert_to_iter_based=True, like='beit'),
    dict(type='HalfCosineWeightDecay', eta_min=0.4, by_epoch=True, convert_to_iter_based=True, like='beit'),
]
custom_hooks = [
    dict(type='FreezeHook', parts=['last_layer'], epochs=1),
    dict(type='CollapseHook', interval=100),
]
