"""I-JEPA, ViT-B/16, 600 epochs, and its transfer: the linear probe of the teacher's mean patch.

    tools/transfer.py configs/chains/ijepa_vitb_600e.py --gpus 8

Published for this line: linear 72.9 (as quoted by EMAE). The recipe is ours: configs/ijepa/ijepa_vitb_600e.py.
Needs data/imagenet (or --data-root imagenet=DIR). Cost: the sum of the recipes.
"""

name = 'ijepa_vitb_600e'
work_dir = 'work_dirs/ijepa_vitb_600e'
stages = dict(
    pretrain=dict(kind='pretrain', config='configs/ijepa/ijepa_vitb_600e.py', arm='ijepa'),
    linear=dict(kind='linear', config='configs/linear/vitb_ijepa_50e.py', init='pretrain'),
    report=dict(kind='report'),
)
