# SimMIM's optimisation (Xie et al. 2022 and its release): AdamW, lr 1e-4 x batch / 512 (not 256), constant after the
# warm-up but for one drop to a tenth at 7/8 of the training. No decay on one-dimensional parameters and mask token
# (Swin; the ViT recipe says what differs); Swin's tables of relative positions the release means to spare and decays.
base_batch = 2048
auto_scale_lr = dict(base_batch_size=base_batch)
optim_wrapper = dict(
    type='AutocastOptimWrapper',
    dtype='bfloat16',
    optimizer=dict(type='AdamW', lr=1e-4 * base_batch / 512, betas=(0.9, 0.999), weight_decay=0.05, fused=True),
    clip_grad=dict(max_norm=5.0),
    constructor='LayerDecayConstructor',
    paramwise_cfg=dict(
        norm_decay_mult=0.0,
        bias_decay_mult=0.0,
        flat_decay_mult=0.0,
        no_decay=['mask_token', 'absolute_pos_embed'],
    ),
)

train_cfg = dict(by_epoch=True, max_epochs=800)
param_scheduler = [
    dict(type='WarmupLR', start_factor=5e-7 / 1e-4, by_epoch=True, end=10, convert_to_iter_based=True, like='timm'),
    # At epoch 700 and an iteration late, as the release (mmpretrain's recipe counts from its begin: epoch 710).
    dict(type='StepsLR', milestones=[700], by_epoch=True, begin=10, convert_to_iter_based=True, like='timm'),
]
