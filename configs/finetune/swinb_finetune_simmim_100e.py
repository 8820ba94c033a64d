"""Fine-tuning of SimMIM Swin-B at 224 px, windows of 7, for encoders of configs/simmim (Xie et al., CVPR 2022).

    tools/dist_train.sh configs/finetune/swinb_finetune_simmim_100e.py 8 --cfg-options init=CKPT

Published: 84.0 after 800 epochs of pretraining, whose file this is; after 100 epochs 83.5 with layer decay 0.9:
optim_wrapper.paramwise_cfg.layer_decay_rate=0.9. lr 5e-3 for 2048 images, layer decay 0.8 over 24 blocks, drop path
0.1, 100 epochs, warm-up 20, cosine to 1e-6, gradients clipped at 5. Tables of the pretraining's windows of 6 are
resized to 7, as the release does; positions are not decayed. At the pretraining's size: model.backbone.img_size=192
model.backbone.window_size=6 and 192 px crops.
Batch 8 x 256; less memory: train_dataloader.batch_size=64 optim_wrapper.accumulative_counts=4.
Cost: not measured here.
"""

_base_ = ['./vitb_finetune_simmim_100e.py']

model = dict(
    backbone=dict(_delete_=True, type='SwinTransformer', arch='base', img_size=224, window_size=7, drop_path_rate=0.1),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(in_channels=1024, init_cfg=dict(_delete_=True, type='TruncNormal', layer='Linear', std=0.02)),
)
optim_wrapper = dict(
    paramwise_cfg=dict(
        layer_decay_rate=0.8, no_decay=('relative_position_bias_table', 'absolute_pos_embed', 'mask_token')
    )
)
