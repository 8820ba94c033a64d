"""CMAE, ViT-B/16, 1600 epochs of ImageNet-1k (Huang et al., TPAMI 2023).

    tools/dist_train.sh configs/cmae/cmae_vitb_1600e.py 8

Published: fine-tune 84.7 (MAE there: 83.6), with half the rate of the 300-epoch checkpoint.
Batch 4096 = 8 x 512, never accumulated; see cmae_vitb_300e.py.
Cost: 16 h on 8 H100 at half of their bf16 peak, by FLOPs (112 GFLOP an image), about 40 GB each; not measured.
"""

_base_ = './cmae_vitb_300e.py'
train_cfg = dict(max_epochs=1600)
