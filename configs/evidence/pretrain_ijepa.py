"""Small scale, I-JEPA on CIFAR-10: 64 patches of 4 px, a ViT of width 64 without class token.

    python tools/train.py configs/evidence/pretrain_ijepa.py --data-root CIFAR

CIFAR holds train/<class>/*.jpg and val/<class>/*.jpg (EVIDENCE_ROOT names it as well). Blocks of the published scales
have 8 to 12 of these patches, so a context keeps more than 4 in place of 10. Images are divided by a quarter of their
spread: the published start (N(0, 0.02)) gives a patch of 16 px, 768 values, a spread of 0.55 beside positions of 0.7,
but one of 4 px, 48 values, of 0.14, and then the teacher tells where a patch is and little else. A small batch, whose
context is not cut as short. Rate and momentum for it chosen by hand, not swept; no decay towards 0.4 in so few steps.
In fp32. k-NN of the teacher: --prefix teacher.
"""

_base_ = './pretrain_mae.py'
epochs = 4
warmup = 0.2

model = dict(
    _delete_=True,
    _scope_='mim_mm',
    type='IJEPA',
    data_preprocessor=dict(type='ImgDataPreprocessor', mean=[125.3, 123.0, 113.9], std=[15.75, 15.5, 16.7]),
    backbone=dict(
        type='mmpretrain.VisionTransformer',
        arch=dict(embed_dims=64, num_layers=4, num_heads=2, feedforward_channels=256),
        img_size=32,
        patch_size=4,
        with_cls_token=False,
        out_type='raw',
    ),
    masker=dict(type='MultiBlockMasking', min_keep=4),
    predictor=dict(embed_dims=32, depth=2),
    momentum=dict(start=0.998, end=1.0, shape='linear'),
)
train_dataloader = dict(batch_size=16)
optim_wrapper = dict(clip_grad=None, optimizer=dict(lr=5e-4, betas=(0.9, 0.999)))
param_scheduler = [
    dict(type='WarmupLR', start_factor=0.2, by_epoch=True, end=warmup, convert_to_iter_based=True, like='msn'),
    dict(type='HalfCosineLR', eta_min=1e-6, by_epoch=True, begin=warmup, convert_to_iter_based=True, like='msn'),
]
custom_hooks = [dict(type='CollapseHook', interval=50)]
train_cfg = dict(max_epochs=epochs)
default_hooks = dict(logger=dict(interval=200), checkpoint=dict(interval=5, max_keep_ckpts=1))
