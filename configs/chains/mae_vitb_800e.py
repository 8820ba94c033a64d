"""MAE, ViT-B/16, 800 epochs, and its transfer: quick probe, linear probe, fine-tuning, Mask R-CNN on COCO.

    tools/transfer.py configs/chains/mae_vitb_800e.py --gpus 8

Published for 800 epochs (as quoted by EMAE): linear 64.4, fine-tune 83.4; for 1600: COCO box AP 50.4, mask AP 44.9.
Needs data/imagenet and data/coco (or --data-root imagenet=DIR coco=DIR). Cost: the sum of the five recipes.
"""

name = 'mae_vitb_800e'
work_dir = 'work_dirs/mae_vitb_800e'
stages = dict(
    pretrain=dict(kind='pretrain', config='configs/mae/mae_vitb_800e.py', arm='mae'),
    probe=dict(kind='probe', config='configs/linear/vitb_quick_probe.py', init='pretrain'),
    linear=dict(kind='linear', config='configs/linear/vitb_linear_90e.py', init='pretrain'),
    finetune=dict(kind='finetune', config='configs/finetune/vitb_finetune_100e.py', init='pretrain'),
    coco=dict(kind='coco', config='configs/coco/mask_rcnn_vitb_fpn_lsj_100e.py', init='pretrain'),
    report=dict(kind='report'),
)
