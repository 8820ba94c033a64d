"""MAE with salience masks (SBAM), ViT-B/16, 400 epochs, and its transfer: quick probe, linear probe, fine-tuning, COCO.

    tools/transfer.py configs/chains/sbam_mae_vitb_400e.py --gpus 8

Published for this line (Choi et al., ECCV 2024): fine-tune 83.6, epochs not said.
Needs data/imagenet and data/coco (or --data-root imagenet=DIR coco=DIR). Cost: the sum of the five recipes.
"""

name = 'sbam_mae_vitb_400e'
work_dir = 'work_dirs/sbam_mae_vitb_400e'
stages = dict(
    pretrain=dict(kind='pretrain', config='configs/sbam/sbam_mae_vitb_400e.py', arm='sbam_mae'),
    probe=dict(kind='probe', config='configs/linear/vitb_quick_probe.py', init='pretrain'),
    linear=dict(kind='linear', config='configs/linear/vitb_linear_90e.py', init='pretrain'),
    finetune=dict(kind='finetune', config='configs/finetune/vitb_finetune_100e.py', init='pretrain'),
    coco=dict(kind='coco', config='configs/coco/mask_rcnn_vitb_fpn_lsj_100e.py', init='pretrain'),
    report=dict(kind='report'),
)
