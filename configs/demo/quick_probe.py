"""Demo, quick probe on single digits: 60 linear heads at once on the frozen encoder, chosen on held-out images.

python tools/train.py configs/demo/quick_probe.py --cfg-options init=CKPT
"""

_base_ = '../_base_/small/quick_probe.py'
data_root = r"""{{$DEMO_ROOT:data/demo}}/digits"""

data_preprocessor = dict(mean=[110.0] * 3, std=[64.0] * 3, to_rgb=False)
model = dict(
    backbone=dict(
        arch=dict(embed_dims=128, num_layers=4, num_heads=4, feedforward_channels=512),
        patch_size=8,
    )
)
held_out = dict(fraction=0.1, at_most=50, seed=0)
images = dict(type='mim_mm.ProbeImages', data_root=data_root, pipeline={{_base_.transforms}})
train_dataloader = dict(batch_size=64, dataset=dict(**images, data_prefix='train', part='fit', **held_out))
val_dataloader = dict(
    batch_size=120,
    dataset=dict(
        datasets=[
            dict(**images, data_prefix='train', part='choose', **held_out),
            dict(**images, data_prefix='val', classes_from='train', part='report'),
        ],
    ),
)
test_dataloader = val_dataloader

optim_wrapper = dict(optimizer=dict(lr=64 / 256))
train_cfg = dict(max_iters=300, val_interval=300)
auto_scale_lr = dict(base_batch_size=64)
default_hooks = dict(logger=dict(interval=50), checkpoint=dict(interval=300))
