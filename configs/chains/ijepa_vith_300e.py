"""I-JEPA, ViT-H/14, 300 epochs, and its transfer: the linear probe of the teacher's mean patch.

    tools/transfer.py configs/chains/ijepa_vith_300e.py --gpus 8

Published for this line: linear 79.3 (Assran et al., CVPR 2023; from memory).
k-NN: tools/knn.py with --prefix teacher. and the recipe of the probe.
Needs data/imagenet (or --data-root imagenet=DIR). Cost: the sum of the recipes.
"""

name = 'ijepa_vith_300e'
work_dir = 'work_dirs/ijepa_vith_300e'
stages = dict(
    pretrain=dict(kind='pretrain', config='configs/ijepa/ijepa_vith_300e.py', arm='ijepa'),
    linear=dict(kind='linear', config='configs/linear/vith_ijepa_50e.py', init='pretrain'),
    report=dict(kind='report'),
)
