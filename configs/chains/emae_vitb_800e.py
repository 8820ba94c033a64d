"""EMAE, ViT-B/16, 800 epochs, and its transfer: quick probe, linear probe, fine-tuning, Mask R-CNN on COCO.

    tools/transfer.py configs/chains/emae_vitb_800e.py --gpus 8

Published for this line (Li et al., TPAMI 2024): linear 70.4, fine-tune 84.0, COCO box AP 51.4, mask AP 45.7.
Needs data/imagenet and data/coco (or --data-root imagenet=DIR coco=DIR). Cost: the sum of the five recipes.
"""

name = 'emae_vitb_800e'
work_dir = 'work_dirs/emae_vitb_800e'
stages = dict(
    pretrain=dict(kind='pretrain', config='configs/emae/emae_vitb_800e.py', arm='emae'),
    probe=dict(kind='probe', config='configs/linear/vitb_quick_probe.py', init='pretrain'),
    linear=dict(kind='linear', config='configs/linear/vitb_linear_90e.py', init='pretrain'),
    finetune=dict(kind='finetune', config='configs/finetune/vitb_finetune_100e.py', init='pretrain'),
    coco=dict(kind='coco', config='configs/coco/mask_rcnn_vitb_fpn_lsj_100e.py', init='pretrain'),
    report=dict(kind='report'),
)
