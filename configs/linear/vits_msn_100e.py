"""Linear probe of ViT-S/16 on ImageNet-1k: MSN's protocol, class token before the final norm (Assran et al. 2022).

    tools/dist_train.sh configs/linear/vits_msn_100e.py 8 --cfg-options init=CKPT

Published: MSN ViT-S/16 76.9.
The encoder's final norm is not used; a LayerNorm of the probe's own, trained, then unit length; SGD with Nesterov
momentum 0.9, lr 6.4 for 8192 images, not scaled, no decay, 100 epochs, no warm-up, cosine set every iteration; crops
and test images resized bilinearly. Batch 8 x 1024. Other batches: --auto-scale-lr. Other data: IMAGENET_ROOT=DIR and
model.head.num_classes=N. Takes MSN's file as it is released (its target encoder). For encoders of configs/msn, which
are evaluated by their teacher: --cfg-options custom_hooks.0.prefix=teacher.backbone.
Differences: the release's SGD has the rate inside the buffer, which differs by the change of the rate over some ten
iterations; its features are in fp16, here fp32; it reports the best epoch on the test set, here every epoch is logged.
Cost: not measured here.
"""

_base_ = ['./vitb_mocov3_90e.py']

model = dict(
    backbone=dict(arch='deit-small'),
    norm=False,
    neck=dict(type='mim_mm.LayerNormL2', embed_dims=384),
    head=dict(in_channels=384),
)
train_dataloader = dict(batch_size=1024)
optim_wrapper = dict(optimizer=dict(lr=6.4, nesterov=True))
param_scheduler = [dict(type='mim_mm.HalfCosineLR', by_epoch=True, convert_to_iter_based=True)]
train_cfg = dict(max_epochs=100)
auto_scale_lr = dict(base_batch_size=8192)
