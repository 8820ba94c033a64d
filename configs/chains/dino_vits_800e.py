"""DINO, ViT-S/16, 800 epochs, and its transfer: quick probe, linear probe, fine-tuning, Mask R-CNN on COCO.

    tools/transfer.py configs/chains/dino_vits_800e.py --gpus 8

Published: k-NN 74.5, linear 77.0 (Caron et al., ICCV 2021); fine-tuning with the settings of iBOT.
Everything downstream starts from the teacher, as the release evaluates it; k-NN: tools/knn.py with
--prefix teacher.backbone.
Needs data/imagenet and data/coco (or --data-root imagenet=DIR coco=DIR). Cost: the sum of the recipes.
"""

name = 'dino_vits_800e'
work_dir = 'work_dirs/dino_vits_800e'
_teacher = {'custom_hooks.0.prefix': 'teacher.backbone.'}
stages = dict(
    pretrain=dict(kind='pretrain', config='configs/dino/dino_vits_800e.py', arm='dino'),
    probe=dict(
        kind='probe',
        config='configs/linear/vitb_quick_probe.py',
        init='pretrain',
        options={**_teacher, 'model.backbone.arch': 'deit-small'},
    ),
    linear=dict(kind='linear', config='configs/linear/vits_dino_100e.py', init='pretrain', options=_teacher),
    finetune=dict(kind='finetune', config='configs/finetune/vits_finetune_200e.py', init='pretrain', options=_teacher),
    coco=dict(kind='coco', config='configs/coco/mask_rcnn_vits_fpn_lsj_100e.py', init='pretrain', options=_teacher),
    report=dict(kind='report'),
)
