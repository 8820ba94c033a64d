"""BootMAE, ViT-B/16, 800 epochs, and its transfer: linear probe of block 10, fine-tuning.

    tools/transfer.py configs/chains/bootmae_vitb_800e.py --gpus 8

Published for this line (BootMAE release): linear 66.1, fine-tune 84.2.
Needs data/imagenet (or --data-root imagenet=DIR). Cost: the sum of the three recipes.
"""

name = 'bootmae_vitb_800e'
work_dir = 'work_dirs/bootmae_vitb_800e'
stages = dict(
    pretrain=dict(kind='pretrain', config='configs/bootmae/bootmae_vitb_800e.py', arm='bootmae'),
    linear=dict(kind='linear', config='configs/linear/vitb_bootmae_90e.py', init='pretrain'),
    finetune=dict(kind='finetune', config='configs/finetune/vitb_finetune_bootmae_100e.py', init='pretrain'),
    report=dict(kind='report'),
)
