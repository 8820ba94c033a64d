"""CMAE, ViT-B/16, 300 epochs of ImageNet-1k (Huang et al., TPAMI 2023).

    tools/dist_train.sh configs/cmae/cmae_vitb_300e.py 8

Published: fine-tune 83.8 (MAE there: 82.9). No linear, k-NN or COCO figure was released.
Batch 4096 = 8 x 512 (the release: 32 x 128 or 16 x 256, the same, since targets and BatchNorm go over all ranks). It is
never accumulated: the negatives would be those of a micro-batch. Other batches: --auto-scale-lr, and fewer negatives.
bf16 where the release trains in fp16 with a loss scaler.
Cost: 3.0 h on 8 H100 at half of their bf16 peak, by FLOPs (112 GFLOP an image), about 40 GB each; not measured.
"""

_base_ = [
    '../_base_/models/cmae_vit.py',
    '../_base_/datasets/imagenet_shifted_views.py',
    '../_base_/schedules/cmae_pretrain.py',
    '../_base_/default_runtime.py',
]
train_dataloader = dict(batch_size=512)
train_cfg = dict(max_epochs=300)
