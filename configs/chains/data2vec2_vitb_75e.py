"""data2vec 2.0, ViT-B/16, 75 epochs, and its transfer: fine-tuning of the student.

    tools/transfer.py configs/chains/data2vec2_vitb_75e.py --gpus 8

Published for this line: none that was read (configs/data2vec/data2vec2_vitb_75e.py).
Needs data/imagenet (or --data-root imagenet=DIR). Cost: the sum of the recipes.
"""

name = 'data2vec2_vitb_75e'
work_dir = 'work_dirs/data2vec2_vitb_75e'
stages = dict(
    pretrain=dict(kind='pretrain', config='configs/data2vec/data2vec2_vitb_75e.py', arm='data2vec 2.0'),
    finetune=dict(kind='finetune', config='configs/finetune/vitb_finetune_data2vec2_100e.py', init='pretrain'),
    report=dict(kind='report'),
)
