# Optimisation of I-JEPA: AdamW, lr 2e-4 -> 1e-3 for 2048 images, cosine to 1e-6, weight decay 0.04 -> 0.4 without
# warm-up, no clipping. One-dimensional tensors and biases escape weight decay, the mask token does not.
base_batch = 2048
auto_scale_lr = dict(base_batch_size=base_batch)
optim_wrapper = dict(
    type='AutocastOptimWrapper',
    dtype='bfloat16',
    optimizer=dict(type='AdamW', lr=1e-3, betas=(0.9, 0.999), weight_decay=0.04, fused=True),
    constructor='LayerDecayConstructor',
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0, flat_decay_mult=0.0, no_decay=[]),
)

train_cfg = dict(by_epoch=True, max_epochs=300)
param_scheduler = [
    dict(type='WarmupLR', start_factor=0.2, by_epoch=True, end=40, convert_to_iter_based=True, like='msn'),
    dict(type='HalfCosineLR', eta_min=1e-6, by_epoch=True, begin=40, convert_to_iter_based=True, like='msn'),
    dict(type='HalfCosineWeightDecay', eta_min=0.4, by_epoch=True, convert_to_iter_based=True, like='msn'),
]
custom_hooks = [
    dict(type='MaskDiagnosticsHook', interval=500),
    dict(type='CollapseHook', interval=100),
]
