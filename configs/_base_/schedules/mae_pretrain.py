# MAE's optimisation (He et al. 2022, table 8; the EMAE paper uses the same): AdamW, blr 1.5e-4 x batch / 256, cosine.
# Only one-dimensional parameters escape weight decay, as in MAE's release (class and mask token are decayed).
# --auto-scale-lr keeps to the blr rule on another number of GPUs.
base_batch = 4096
auto_scale_lr = dict(base_batch_size=base_batch)
optim_wrapper = dict(
    type='AutocastOptimWrapper',
    dtype='bfloat16',
    optimizer=dict(type='AdamW', lr=1.5e-4 * base_batch / 256, betas=(0.9, 0.95), weight_decay=0.05, fused=True),
    constructor='LayerDecayConstructor',
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0, flat_decay_mult=0.0, no_decay=[]),
)

# mmengine ends a scheduler without ``end`` with training, so max_epochs is the only statement of the duration.
train_cfg = dict(by_epoch=True, max_epochs=800)
# As MAE's adjust_learning_rate, iteration by iteration: see mim_mm/engine/optim/rates.py.
param_scheduler = [
    dict(type='WarmupLR', by_epoch=True, end=40, convert_to_iter_based=True),
    dict(type='HalfCosineLR', by_epoch=True, begin=40, convert_to_iter_based=True),
]
custom_hooks = [
    dict(type='AgreementWatchHook', interval=100),
]
