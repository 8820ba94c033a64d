"""Recipes shrunken to 32-px images, as texts, for chains that train in earnest."""

from tiny_run import ROOT

VIT = """
    backbone=dict(
        arch=dict(_delete_=True, embed_dims=32, num_layers=2, num_heads=2, feedforward_channels=64),
        img_size=32, patch_size=8{more}),
"""
PRETRAIN = f"""
_base_ = r'{ROOT}/configs/emae/emae_vitb_800e.py'
model = dict({VIT.format(more='')}
    decoder=dict(embed_dims=32, depth=1, num_heads=2))
train_dataloader = dict(batch_size=6, num_workers=0, persistent_workers=False, pin_memory=False)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='mmpretrain.RandomResizedCrop', scale=32, crop_ratio_range=(0.6, 1.0)),
    dict(type='PackImage'),
]
train_dataloader['dataset'] = dict(pipeline=train_pipeline)
train_cfg = dict(max_epochs=3)
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(interval=1))
"""
LINEAR = f"""
_base_ = r'{ROOT}/configs/linear/vitb_linear_90e.py'
model = dict({VIT.format(more=', frozen_stages=2')}
    neck=dict(input_features=32), head=dict(num_classes=2, in_channels=32))
steps = [dict(type='LoadImageFromFile'), dict(type='Resize', scale=(32, 32)), dict(type='PackInputs')]
train_dataloader = dict(batch_size=6, num_workers=0, persistent_workers=False, pin_memory=False)
train_dataloader['dataset'] = dict(pipeline=steps)
val_dataloader = dict(batch_size=6, num_workers=0, persistent_workers=False, pin_memory=False)
val_dataloader['dataset'] = dict(pipeline=steps)
val_evaluator = dict(topk=(1,))
train_cfg = dict(max_epochs=40)
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(interval=1))
"""
