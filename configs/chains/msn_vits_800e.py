"""MSN, ViT-S/16, 800 epochs, and its transfer: quick probe, linear probe, fine-tuning, Mask R-CNN on COCO.

    tools/transfer.py configs/chains/msn_vits_800e.py --gpus 8

Published: linear 76.9 and 1 % of the labels 67.2 (from memory). The release fine-tunes with MAE's code, which has no
ViT-S: iBOT's settings here.
Everything downstream starts from the teacher, as the release evaluates it; k-NN and few labels: tools/knn.py and
tools/lowshot.py with --prefix teacher.backbone.
Needs data/imagenet and data/coco (or --data-root imagenet=DIR coco=DIR). Cost: the sum of the recipes.
"""

name = 'msn_vits_800e'
work_dir = 'work_dirs/msn_vits_800e'
_teacher = {'custom_hooks.0.prefix': 'teacher.backbone.'}
stages = dict(
    pretrain=dict(kind='pretrain', config='configs/msn/msn_vits_800e.py', arm='msn'),
    probe=dict(
        kind='probe',
        config='configs/linear/vitb_quick_probe.py',
        init='pretrain',
        options={**_teacher, 'model.backbone.arch': 'deit-small'},
    ),
    linear=dict(kind='linear', config='configs/linear/vits_msn_100e.py', init='pretrain', options=_teacher),
    finetune=dict(kind='finetune', config='configs/finetune/vits_finetune_200e.py', init='pretrain', options=_teacher),
    coco=dict(kind='coco', config='configs/coco/mask_rcnn_vits_fpn_lsj_100e.py', init='pretrain', options=_teacher),
    report=dict(kind='report'),
)
