# Fine-tuning as MAE, BEiT, CAE, iBOT and SimMIM share it: AdamW, layer decay, no weight decay on one-dimensional
# tensors, class token and positions (tables of relative positions are decayed). The recipe states the schedule.
_base_ = '../downstream_runtime.py'

optim_wrapper = dict(
    type='mim_mm.AutocastOptimWrapper',
    optimizer=dict(type='AdamW', lr=4e-3, weight_decay=0.05, betas=(0.9, 0.999), fused=True),
    constructor='mim_mm.LayerDecayConstructor',
    paramwise_cfg=dict(layer_decay_rate=0.65, norm_decay_mult=0.0, bias_decay_mult=0.0, flat_decay_mult=0.0),
)
val_cfg = dict()
test_cfg = dict()
auto_scale_lr = dict(base_batch_size=1024)
default_hooks = dict(checkpoint=dict(save_best='accuracy/top1'))
custom_hooks = [
    dict(type='mim_mm.LoadPretrainedHook', checkpoint=None, prefix='backbone.', target='backbone', min_loaded=0.95),
    dict(type='mim_mm.ClassCountHook'),
]
