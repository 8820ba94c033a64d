"""iBOT with AttMask (hint), ViT-S/16, 100 epochs, and its transfer: probes, fine-tuning, Mask R-CNN on COCO.

    tools/transfer.py configs/chains/attmask_hint_vits_100e.py --gpus 8

Published: k-NN 72.8, linear 76.1 (Kakogeorgiou et al., ECCV 2022).
Everything downstream starts from the teacher, as the release evaluates it; k-NN: tools/knn.py with
--prefix teacher.backbone.
Needs data/imagenet and data/coco (or --data-root imagenet=DIR coco=DIR). Cost: the sum of the recipes.
"""

name = 'attmask_hint_vits_100e'
work_dir = 'work_dirs/attmask_hint_vits_100e'
_teacher = {'custom_hooks.0.prefix': 'teacher.backbone.'}
stages = dict(
    pretrain=dict(kind='pretrain', config='configs/attmask/attmask_hint_vits_100e.py', arm='attmask'),
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
