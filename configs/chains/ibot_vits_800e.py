"""iBOT, ViT-S/16, 800 epochs, and its transfer: quick probe, linear probe, fine-tuning, Mask R-CNN on COCO.

    tools/transfer.py configs/chains/ibot_vits_800e.py --gpus 8

Published: k-NN 75.2, linear 77.9, fine-tune 82.3 (Zhou et al., ICLR 2022).
Everything downstream starts from the teacher, as the release evaluates it; k-NN: tools/knn.py with
--prefix teacher.backbone.
Needs data/imagenet and data/coco (or --data-root imagenet=DIR coco=DIR). Cost: the sum of the recipes.
"""

name = 'ibot_vits_800e'
work_dir = 'work_dirs/ibot_vits_800e'
_teacher = {'custom_hooks.0.prefix': 'teacher.backbone.'}
stages = dict(
    pretrain=dict(kind='pretrain', config='configs/ibot/ibot_vits_800e.py', arm='ibot'),
    probe=dict(
        kind='probe',
        config='configs/linear/vitb_quick_probe.py',
        init='pretrain',
        options={**_teacher, 'model.backbone.arch': 'deit-small'},
    ),
    linear=dict(kind='linear', config='configs/linear/vits_ibot_100e.py', init='pretrain', options=_teacher),
    finetune=dict(kind='finetune', config='configs/finetune/vits_finetune_200e.py', init='pretrain', options=_teacher),
    coco=dict(kind='coco', config='configs/coco/mask_rcnn_vits_fpn_lsj_100e.py', init='pretrain', options=_teacher),
    report=dict(kind='report'),
)
