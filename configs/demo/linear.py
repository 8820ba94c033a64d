"""Demo, linear probe on single digits: frozen encoder, mean of its tokens, BatchNorm without affine, one linear layer.

python tools/train.py configs/demo/linear.py --cfg-options init=CKPT
"""

_base_ = '../_base_/small/linear.py'
data_root = r"""{{$DEMO_ROOT:data/demo}}/digits"""
epochs = 25

data_preprocessor = dict(mean=[110.0] * 3, std=[64.0] * 3, to_rgb=False)
model = dict(
    backbone=dict(
        arch=dict(embed_dims=128, num_layers=4, num_heads=4, feedforward_channels=512),
        patch_size=8,
    ),
    neck=dict(input_features=128),
    head=dict(in_channels=128),
)
transforms = [dict(type='LoadImageFromFile'), dict(type='PackInputs')]
train_dataloader = dict(batch_size=64, dataset=dict(data_root=data_root, pipeline=transforms))
val_dataloader = dict(batch_size=120, dataset=dict(data_root=data_root))
test_dataloader = val_dataloader
train_cfg = dict(max_epochs=epochs, val_interval=5)
default_hooks = dict(logger=dict(interval=10), checkpoint=dict(interval=epochs))
