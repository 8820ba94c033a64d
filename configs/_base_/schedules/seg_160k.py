# 160,000 iterations of 16 images, AdamW in bf16, warm-up and a straight line to zero: BEiT's segmentation. The recipe
# states rate and layer decay. Class token and positions are exempt from weight decay: that code means to, and misses.
_base_ = '../downstream_runtime.py'

custom_imports = dict(imports=['mim_mm', 'mim_mm.segmentation'], allow_failed_imports=False)
optim_wrapper = dict(
    type='mim_mm.AutocastOptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-4, weight_decay=0.05, betas=(0.9, 0.999), fused=True),
    constructor='mim_mm.LayerDecayConstructor',
    paramwise_cfg=dict(layer_decay_rate=0.65, norm_decay_mult=0.0, bias_decay_mult=0.0, flat_decay_mult=0.0),
)
param_scheduler = [
    dict(type='mim_mm.WarmupLR', start_factor=1e-6, by_epoch=False, end=1500),
    dict(type='mim_mm.PolyLR', by_epoch=False, begin=1500),
]
train_cfg = dict(type='IterBasedTrainLoop', max_iters=160000, val_interval=16000)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
auto_scale_lr = dict(base_batch_size=16)
default_hooks = dict(logger=dict(interval=50), checkpoint=dict(by_epoch=False, interval=4000))
log_processor = dict(by_epoch=False)
custom_hooks = [
    dict(type='mim_mm.LoadPretrainedHook', checkpoint=None, prefix='backbone.', target='backbone', min_loaded=0.95),
    dict(type='mim_mm.MaskClassesHook'),
]
