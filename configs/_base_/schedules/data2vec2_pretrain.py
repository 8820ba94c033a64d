# Optimisation of data2vec 2.0: AdamW, lr 1e-3 for 256 images, cosine to 0, gradients clipped at 4. Every trained tensor
# is decayed: the release marks norms and biases as exempt, and its composite optimizer never reads the mark.
base_batch = 256
auto_scale_lr = dict(base_batch_size=base_batch)
optim_wrapper = dict(
    type='AutocastOptimWrapper',
    dtype='bfloat16',
    optimizer=dict(type='AdamW', lr=1e-3, betas=(0.9, 0.95), weight_decay=0.05, fused=True),
    clip_grad=dict(max_norm=4.0),
    constructor='LayerDecayConstructor',
    paramwise_cfg=dict(no_decay=[]),
)

train_cfg = dict(by_epoch=True, max_epochs=75)
param_scheduler = [
    dict(type='WarmupLR', by_epoch=True, end=10, convert_to_iter_based=True),
    dict(type='HalfCosineLR', by_epoch=True, begin=10, convert_to_iter_based=True),
]
custom_hooks = [
    dict(type='MaskDiagnosticsHook', interval=500),
    dict(type='CollapseHook', interval=100),
]
