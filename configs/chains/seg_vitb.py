"""Segmentation of ADE20K by one encoder: MAE, ViT-B/16, 800 epochs, a linear layer on it, then UperNet.

    tools/transfer.py configs/chains/seg_vitb.py --gpus 8 --skip-pretrain CKPT

Published for 1600 epochs (MAE): UperNet mIoU 48.1. Another method: copy this file and name its pretraining.
Needs data/ade20k (or --data-root ade20k=DIR), without --skip-pretrain data/imagenet too. Cost: the sum of the recipes.
"""

name = 'seg_vitb'
work_dir = 'work_dirs/seg_vitb'
_segments = dict(
    name='segments',
    path='segments.png',
    command='python tools/draw_segments.py {config} {checkpoint} --out {path}',
)
stages = dict(
    pretrain=dict(kind='pretrain', config='configs/mae/mae_vitb_800e.py', arm='mae'),
    seg_linear=dict(
        kind='seg_linear', config='configs/seg/linear_vitb_160k.py', init='pretrain', artifacts=[_segments]
    ),
    seg=dict(kind='seg', config='configs/seg/upernet_vitb_160k.py', init='pretrain', artifacts=[_segments]),
    report=dict(kind='report'),
)
