"""MoCo v3, ViT-S/16 with 12 heads, 300 epochs of ImageNet-1k (Chen, Xie and He, ICCV 2021).

    tools/dist_train.sh configs/mocov3/mocov3_vits_300e.py 8

Published: linear 73.2, fine-tune 81.4 (CONFIG.md and README of the release).
MoCo v3's ViT-S has 12 heads where everybody else's (deit-small) has 6; the weights have the same shapes, so probe and
fine-tune with vits_mocov3_90e.py and vits_finetune_mocov3_300e.py, which know.
Batch 4096 = 8 x 512, never accumulated. The release's other setting, batch 1024: train_dataloader.batch_size=128
--auto-scale-lr. As mocov3_vitb_300e.py otherwise.
Cost: 2.0 h on 8 H100 at half of their bf16 peak, by FLOPs (73 GFLOP an image, both views), about 41 GB each; not
measured.
"""

_base_ = './mocov3_vitb_300e.py'
model = dict(
    backbone=dict(arch=dict(_delete_=True, embed_dims=384, num_layers=12, num_heads=12, feedforward_channels=1536))
)
