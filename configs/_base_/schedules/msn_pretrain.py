# MSN's optimisation: AdamW in fp32, lr 2e-4 -> 1e-3 in 15 epochs, then a cosine to 1e-6 at 1.25 of the training, weight
# decay 0.04 -> 0.4 on the same long wave. Encoder and head are clipped together at 3, prototypes are not, and have no
# weight decay; neither have biases, norms and other one-dimensional parameters.
base_batch = 1024
auto_scale_lr = dict(base_batch_size=base_batch)
optim_wrapper = dict(
    type='AutocastOptimWrapper',
    dtype='float32',
    optimizer=dict(type='AdamW', lr=1e-3, betas=(0.9, 0.999), weight_decay=0.04, fused=True),
    clip_grad=dict(max_norm=3.0),
    constructor='LayerDecayConstructor',
    paramwise_cfg=dict(
        norm_decay_mult=0.0,
        bias_decay_mult=0.0,
        flat_decay_mult=0.0,
        no_decay=[],
        custom_keys=dict(prototypes=dict(decay_mult=0.0, clip=False)),
    ),
)

train_cfg = dict(by_epoch=True, max_epochs=800)
wave = dict(by_epoch=True, convert_to_iter_based=True, like='msn')
param_scheduler = [
    dict(type='WarmupLR', start_factor=0.2, end=15, **wave),
    dict(type='HalfCosineLR', eta_min=1e-6, begin=15, stretch=1.25, **wave),
    dict(type='HalfCosineWeightDecay', eta_min=0.4, stretch=1.25, **wave),
]
custom_hooks = [
    dict(type='CollapseHook', interval=100),
]
