"""Fine-tuning of MoCo v3's ViT-S/16 (12 heads) on ImageNet-1k with DeiT's protocol (Chen et al., ICCV 2021).

    tools/dist_train.sh configs/finetune/vits_finetune_mocov3_300e.py 8 --cfg-options init=CKPT

Published: MoCo v3 ViT-S 81.4. As vitb_finetune_mocov3_150e.py but 300 epochs. MoCo v3's ViT-S has 12 heads; encoders
with 6 (configs/mae, configs/emae, DINO) load without complaint and want model.backbone.arch.num_heads=6.
Batch 8 x 128.
Cost: not measured here.
"""

_base_ = ['./vitb_finetune_mocov3_150e.py']

model = dict(
    backbone=dict(arch=dict(_delete_=True, embed_dims=384, num_layers=12, num_heads=12, feedforward_channels=1536)),
    head=dict(in_channels=384),
)
train_cfg = dict(max_epochs=300)
