# Runtime of the COCO recipes, AdamW in bf16: the recipe states duration, schedule and differences.
_base_ = '../downstream_runtime.py'

optim_wrapper = dict(
    type='mim_mm.AutocastOptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-4, weight_decay=0.05, betas=(0.9, 0.999), fused=True),
    constructor='mim_mm.LayerDecayConstructor',
    paramwise_cfg=dict(norm_decay_mult=0.0),
)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
default_hooks = dict(logger=dict(interval=50))
env_cfg = dict(cudnn_benchmark=False)  # the number of RoIs and the image sizes change in every iteration
custom_hooks = [
    dict(type='mim_mm.LoadPretrainedHook', checkpoint=None, prefix='backbone.', target='backbone', min_loaded=0.95),
    dict(type='NumClassCheckHook'),
]
