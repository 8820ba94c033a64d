"""data2vec, ViT-B/16, 800 epochs, and its transfer: fine-tuning of the student.

    tools/transfer.py configs/chains/data2vec_vitb_800e.py --gpus 8

Published for this line: fine-tune 84.2 (Baevski et al., ICML 2022).
Needs data/imagenet (or --data-root imagenet=DIR). Cost: the sum of the recipes.
"""

name = 'data2vec_vitb_800e'
work_dir = 'work_dirs/data2vec_vitb_800e'
stages = dict(
    pretrain=dict(kind='pretrain', config='configs/data2vec/data2vec_vitb_800e.py', arm='data2vec'),
    finetune=dict(kind='finetune', config='configs/finetune/vitb_finetune_data2vec_100e.py', init='pretrain'),
    report=dict(kind='report'),
)
