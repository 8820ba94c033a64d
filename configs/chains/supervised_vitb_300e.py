"""EMAE beside supervised training of the same ViT-B/16 for 300 epochs: ImageNet-1k accuracy, then Mask R-CNN on COCO.

    tools/transfer.py configs/chains/supervised_vitb_300e.py --gpus 8

Published: EMAE 300 epochs fine-tune 83.8, COCO box AP 50.6, mask AP 45.0; supervised 82.3, 47.9, 42.9 (Li et al., TPAMI
2024). The supervised arm is one training from random weights; its encoder, the average of the weights, goes on to COCO.
ViT-S and ViT-L: vits_scratch_300e.py (79.9), vitl_scratch_200e.py (82.6) and the other recipes of their size.
Needs data/imagenet and data/coco (or --data-root imagenet=DIR coco=DIR). Cost: the sum of the five recipes.
"""

name = 'supervised_vitb_300e'
work_dir = 'work_dirs/supervised_vitb_300e'
_coco = 'configs/coco/mask_rcnn_vitb_fpn_lsj_100e.py'
stages = dict(
    pretrain=dict(kind='pretrain', config='configs/emae/emae_vitb_300e.py', arm='emae'),
    finetune=dict(kind='finetune', config='configs/finetune/vitb_finetune_100e.py', init='pretrain'),
    coco=dict(kind='coco', config=_coco, init='pretrain'),
    supervised=dict(kind='finetune', config='configs/finetune/vitb_scratch_300e.py', init=None, arm='supervised'),
    coco_supervised=dict(kind='coco', config=_coco, init='supervised'),
    report=dict(kind='report'),
)
orderings = [
    dict(
        claim='EMAE beats supervised training',
        better='emae',
        worse='supervised',
        published='fine-tune 83.8 and 82.3, box AP 50.6 and 47.9, mask AP 45.0 and 42.9',
    )
]
