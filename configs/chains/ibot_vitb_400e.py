"""iBOT, ViT-B/16, 400 epochs, and its transfer: quick probe, linear probe, fine-tuning, Mask R-CNN on COCO.

    tools/transfer.py configs/chains/ibot_vitb_400e.py --gpus 8

Published: k-NN 77.1, linear 79.5, fine-tune 84.0 (Zhou et al., ICLR 2022).
Everything downstream starts from the teacher, as the release evaluates it; k-NN: tools/knn.py with
--prefix teacher.backbone.
Needs data/imagenet and data/coco (or --data-root imagenet=DIR coco=DIR). Cost: the sum of the recipes.
"""

name = 'ibot_vitb_400e'
work_dir = 'work_dirs/ibot_vitb_400e'
_teacher = {'custom_hooks.0.prefix': 'teacher.backbone.'}
stages = dict(
    pretrain=dict(kind='pretrain', config='configs/ibot/ibot_vitb_400e.py', arm='ibot'),
    probe=dict(kind='probe', config='configs/linear/vitb_quick_probe.py', init='pretrain', options=_teacher),
    linear=dict(kind='linear', config='configs/linear/vitb_ibot_100e.py', init='pretrain', options=_teacher),
    finetune=dict(
        kind='finetune', config='configs/finetune/vitb_finetune_ibot_100e.py', init='pretrain', options=_teacher
    ),
    coco=dict(kind='coco', config='configs/coco/mask_rcnn_vitb_fpn_lsj_100e.py', init='pretrain', options=_teacher),
    report=dict(kind='report'),
)
