# SGD on a linear head for 1024 images a step; the rate follows a cosine to zero and is set once an epoch.
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='SGD', lr=12.0, momentum=0.9, weight_decay=0.0),
    constructor='mim_mm.LayerDecayConstructor',
)
param_scheduler = [dict(type='CosineAnnealingLR', eta_min=0.0, by_epoch=True)]
train_cfg = dict(by_epoch=True, max_epochs=100, val_interval=1)
val_cfg = dict()
test_cfg = dict()
auto_scale_lr = dict(base_batch_size=1024)
# The encoder stays as it is loaded: nothing of it may be left at its start.
custom_hooks = [
    dict(type='mim_mm.LoadPretrainedHook', checkpoint=None, prefix='backbone.', target='backbone', complete=True),
    dict(type='mim_mm.ClassCountHook'),
]
