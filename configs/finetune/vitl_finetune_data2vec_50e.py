"""Fine-tuning of data2vec ViT-L/16 on ImageNet-1k, for encoders of configs/data2vec (Baevski et al., ICML 2022).

    tools/dist_train.sh configs/finetune/vitl_finetune_data2vec_50e.py 8 --cfg-options init=CKPT

Published: 86.6 after 1600 epochs of pretraining, of the student.
lr 5e-3 for 1024 images, layer decay 0.65, drop path 0.25, decay 0.05, 50 epochs, no dropout of attention. The release
leaves the warm-up open ($WARMUP): 5 epochs here. Mean and spread 0.5, and one table of relative positions, as in
vitb_finetune_data2vec_100e.py.
Batch 8 x 128; less memory: train_dataloader.batch_size=32 optim_wrapper.accumulative_counts=4.
Cost: not measured here.
"""

_base_ = ['./vitb_finetune_beit_100e.py']

model = dict(
    backbone=dict(
        arch='large',
        drop_path_rate=0.25,
        layer_scale_init_value=1e-5,
        use_rel_pos_bias=False,
        use_shared_rel_pos_bias=True,
    ),
    head=dict(in_channels=1024),
)
optim_wrapper = dict(optimizer=dict(lr=5e-3))
param_scheduler = [
    dict(type='mim_mm.WarmupLR', end=5, convert_to_iter_based=True, like='beit'),
    dict(type='mim_mm.HalfCosineLR', eta_min_ratio=1e-6 / 5e-3, begin=5, convert_to_iter_based=True, like='beit'),
]
train_cfg = dict(max_epochs=50)
