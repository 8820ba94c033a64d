# Optimisation of BEiT and CAE: AdamW, lr 1.5e-3 for 2048 images, cosine to 1e-5, gradients clipped at 3.
base_batch = 2048
auto_scale_lr = dict(base_batch_size=base_batch)
optim_wrapper = dict(
    type='AutocastOptimWrapper',
    dtype='bfloat16',
    optimizer=dict(type='AdamW', lr=1.5e-3, betas=(0.9, 0.999), weight_decay=0.05, fused=True),
    clip_grad=dict(max_norm=3.0),
    constructor='LayerDecayConstructor',
    paramwise_cfg=dict(
        norm_decay_mult=0.0, bias_decay_mult=0.0, flat_decay_mult=0.0, no_decay=['cls_token', 'pos_embed']
    ),
)

train_cfg = dict(by_epoch=True, max_epochs=300)
param_scheduler = [
    dict(type='WarmupLR', by_epoch=True, end=10, convert_to_iter_based=True, like='beit'),
    dict(type='HalfCosineLR', eta_min=1e-5, by_epoch=True, begin=10, convert_to_iter_based=True, like='beit'),
]
