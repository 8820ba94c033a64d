"""DINO, ViT-S/16, 100 epochs of ImageNet-1k (Caron et al., ICCV 2021): the default of the release.

    tools/dist_train.sh configs/dino/dino_vits_100e.py 8

Published: k-NN 69.3, linear 74.0, of the teacher (custom_hooks.0.prefix=teacher.backbone.).
Batch 512 = 8 x 64, never accumulated: the centre is a mean over one batch. Other batches: --auto-scale-lr.
Difference: bf16 without a loss scaler where the release has fp16.
Cost: 1 h on 8 H100 at half of their bf16 peak, by FLOPs (113 GFLOP an image, all its views); not measured.
"""

_base_ = [
    '../_base_/models/dino_vit.py',
    '../_base_/datasets/imagenet_multi_crop.py',
    '../_base_/schedules/dino_pretrain.py',
    '../_base_/default_runtime.py',
]
train_cfg = dict(max_epochs=100)
model = dict(head=dict(norm_last_layer=True))
auto_scale_lr = dict(base_batch_size=512)
optim_wrapper = dict(optimizer=dict(lr=5e-4 * 512 / 256))
