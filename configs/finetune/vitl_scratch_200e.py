"""ViT-L/16 on ImageNet-1k from random weights: MAE's supervised recipe (He et al. 2022, appendix A.2, table 11).

    tools/dist_train.sh configs/finetune/vitl_scratch_200e.py 8

Published: 82.6 (MAE, its own implementation; the row "Supervised" of EMAE's table, which gives 300 epochs where MAE
says 200). As vitb_scratch_300e.py, but 200 epochs and drop path 0.2.
Batch 8 x 512; less memory: train_dataloader.batch_size=64 optim_wrapper.accumulative_counts=8.
Cost: not measured here.
"""

_base_ = ['./vitb_scratch_300e.py']

model = dict(backbone=dict(arch='large', drop_path_rate=0.2), head=dict(in_channels=1024))
train_cfg = dict(max_epochs=200)
