# Optimisation of BootMAE: AdamW, blr 1.5e-4 x batch / 256, cosine to a floor that is not scaled, no clipping.
# No weight decay on one-dimensional tensors, biases and the class token; mask tokens are decayed.
base_batch = 4096
auto_scale_lr = dict(base_batch_size=base_batch)
optim_wrapper = dict(
    type='AutocastOptimWrapper',
    dtype='bfloat16',
    optimizer=dict(type='AdamW', lr=1.5e-4 * base_batch / 256, betas=(0.9, 0.95), weight_decay=0.05, fused=True),
    constructor='LayerDecayConstructor',
    paramwise_cfg=dict(
        norm_decay_mult=0.0, bias_decay_mult=0.0, flat_decay_mult=0.0, no_decay=['cls_token', 'pos_embed']
    ),
)

train_cfg = dict(by_epoch=True, max_epochs=801)
param_scheduler = [
    dict(type='WarmupLR', by_epoch=True, end=40, convert_to_iter_based=True, like='beit'),
    dict(type='HalfCosineLR', eta_min=1e-4, by_epoch=True, begin=40, convert_to_iter_based=True, like='beit'),
]
custom_hooks = [
    dict(type='MaskDiagnosticsHook', interval=500),
]
