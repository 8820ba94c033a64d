"""MoCo v3, ViT-B/16, 300 epochs of ImageNet-1k (Chen, Xie and He, ICCV 2021).

    tools/dist_train.sh configs/mocov3/mocov3_vitb_300e.py 8

Published: linear 76.7, fine-tune 83.2 (CONFIG.md and README of the release; the EMAE paper prints linear 76.2).
Batch 4096 = 8 x 512, never accumulated: negatives and BatchNorms are those of the whole batch, over all GPUs. Other
batches: --auto-scale-lr, and another number of negatives.
bf16 where the release trains in fp16 with a loss scaler; similarities and loss in fp32. Nothing is hidden, so that SBAM
and AMR do not apply.
Cost: 7.6 h on 8 H100 at half of their bf16 peak, by FLOPs (280 GFLOP an image, both views), about 79 GB each, which is
all that they have (16 x 256 where it does not fit); not measured.
"""

_base_ = [
    '../_base_/models/mocov3_vit.py',
    '../_base_/datasets/imagenet_moco_views.py',
    '../_base_/schedules/mocov3_pretrain.py',
    '../_base_/default_runtime.py',
]
