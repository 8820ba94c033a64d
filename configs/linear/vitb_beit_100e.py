"""Linear probe of an intermediate block of BEiT, ViT-B/16, on ImageNet-1k (Bao et al. 2022, run_linear_eval.py).

    tools/dist_train.sh configs/linear/vitb_beit_100e.py 8 --cfg-options init=CKPT

Published: BEiT-B 800 epochs 56.7 (as quoted by EMAE).
BEiT's script trains a head on every block's bare output, class token beside mean patch token, and reports each; here it
is one block a run, the ninth by default: model.blocks=[7] for the eighth. The mean patch token alone:
model.pool=mean model.head.in_channels=768. AdamW, lr 0.004 for 1024 images, decay 0.0001, 100 epochs, cosine set once
an epoch; bilinear crops, bicubic test images; mean and spread 0.5, as BEiT's release. For an encoder of configs/beit,
which has ImageNet's: data_preprocessor.mean=[123.675,116.28,103.53] data_preprocessor.std=[58.395,57.12,57.375].
Batch 8 x 128. Other batches: --auto-scale-lr. Other data: IMAGENET_ROOT=DIR and model.head.num_classes=N.
Difference: the encoder runs in fp32 (original: fp16).
Cost: not measured here.
"""

_base_ = ['./vitb_dino_100e.py']

data_preprocessor = dict(mean=[127.5] * 3, std=[127.5] * 3)
# One table of relative positions for all blocks, as in pretraining: a table a block would start at zero.
positions = dict(use_rel_pos_bias=False, use_shared_rel_pos_bias=True, final_norm=False, out_type='raw')
model = dict(
    backbone=dict(_delete_=True, type='mmpretrain.BEiTViT', arch='base', img_size=224, patch_size=16, **positions),
    blocks=[8],
    norm=False,
)
optim_wrapper = dict(optimizer=dict(_delete_=True, type='AdamW', lr=0.004, weight_decay=0.0001))
