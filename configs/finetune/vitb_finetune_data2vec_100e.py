"""Fine-tuning of data2vec ViT-B/16 on ImageNet-1k, for encoders of configs/data2vec (Baevski et al., ICML 2022).

    tools/dist_train.sh configs/finetune/vitb_finetune_data2vec_100e.py 8 --cfg-options init=CKPT

Published: 84.2 after 800 epochs of pretraining, of the student.
As vitb_finetune_beit_100e.py but for warm-up 10, drop path 0.2, no weight decay, and one table of relative positions
for all blocks, trained at the head's rate (BEiT: a copy a block). Mean and spread are 0.5, as the release's command
leaves them, although it pretrains with ImageNet's; to stay with those: data_preprocessor.mean=[123.675,116.28,103.53]
data_preprocessor.std=[58.395,57.12,57.375].
Batch 8 x 128.
Cost: not measured here.
"""

_base_ = ['./vitb_finetune_beit_100e.py']

model = dict(
    backbone=dict(drop_path_rate=0.2, layer_scale_init_value=1e-4, use_rel_pos_bias=False, use_shared_rel_pos_bias=True)
)
optim_wrapper = dict(optimizer=dict(weight_decay=0.0))
param_scheduler = [
    dict(type='mim_mm.WarmupLR', end=10, convert_to_iter_based=True, like='beit'),
    dict(type='mim_mm.HalfCosineLR', eta_min_ratio=1e-6 / 4e-3, begin=10, convert_to_iter_based=True, like='beit'),
]
