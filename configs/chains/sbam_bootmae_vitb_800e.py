"""BootMAE with and without salience masks (SBAM), ViT-B/16, 800 epochs, and their transfer: linear probe, fine-tuning.

    tools/transfer.py configs/chains/sbam_bootmae_vitb_800e.py --gpus 8

Published for this pair (Choi et al., ECCV 2024): fine-tune 84.1 without, 84.8 with; epochs not said.
Needs data/imagenet (or --data-root imagenet=DIR). Cost: the sum of the recipes.
"""

name = 'sbam_bootmae_vitb_800e'
work_dir = 'work_dirs/sbam_bootmae_vitb_800e'

_linear = 'configs/linear/vitb_bootmae_90e.py'
_finetune = 'configs/finetune/vitb_finetune_bootmae_100e.py'

stages = dict(
    pretrain=dict(kind='pretrain', config='configs/bootmae/bootmae_vitb_800e.py', arm='bootmae'),
    pretrain_sbam=dict(kind='pretrain', config='configs/sbam/sbam_bootmae_vitb_800e.py', arm='sbam_bootmae'),
    linear=dict(kind='linear', config=_linear, init='pretrain'),
    finetune=dict(kind='finetune', config=_finetune, init='pretrain'),
    linear_sbam=dict(kind='linear', config=_linear, init='pretrain_sbam'),
    finetune_sbam=dict(kind='finetune', config=_finetune, init='pretrain_sbam'),
    report=dict(kind='report'),
)
