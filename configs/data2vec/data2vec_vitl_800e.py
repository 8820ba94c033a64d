"""data2vec, ViT-L/16, 800 epochs of ImageNet-1k: the first of two runs (Baevski et al., ICML 2022).

    tools/dist_train.sh configs/data2vec/data2vec_vitl_800e.py 8

Published: none after this run; data2vec_vitl_1600e.py goes on.
As data2vec_vitb_800e.py but for the size, lr 1e-3 for 4096 images, warm-up 80, drop path 0.2, dropout of attention 0.15
and layer scale 1e-5; targets are blocks 18 to 23. Batch 4096 = 8 x 512 (the release: 64 x 64); less memory:
train_dataloader.batch_size=64 optim_wrapper.accumulative_counts=8. Other batches: --auto-scale-lr.
Cost: 35.5 h on 8 H100 at half of their bf16 peak, by FLOPs (493 GFLOP an image); not measured.
"""

_base_ = './data2vec_vitb_800e.py'
model = dict(
    backbone=dict(
        arch='large',
        drop_path_rate=0.2,
        layer_scale_init_value=1e-5,
        layer_cfgs=dict(attn_cfg=dict(attn_drop_rate=0.15)),
    )
)
train_dataloader = dict(batch_size=512)
optim_wrapper = dict(optimizer=dict(lr=1e-3))
param_scheduler = [
    dict(type='WarmupLR', by_epoch=True, end=80, convert_to_iter_based=True, like='beit'),
    dict(type='HalfCosineLR', eta_min=1e-5, by_epoch=True, begin=80, convert_to_iter_based=True, like='beit'),
]
auto_scale_lr = dict(base_batch_size=4096)
