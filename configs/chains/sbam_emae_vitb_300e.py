"""EMAE with parts of equal salience, ViT-B/16, 300 epochs, and its transfer: probes, fine-tuning, COCO.

    tools/transfer.py configs/chains/sbam_emae_vitb_300e.py --gpus 8

Published for this line: none; EMAE with random parts: linear 68.2, fine-tune 83.8, COCO box AP 50.6, mask AP 45.0.
Needs data/imagenet and data/coco (or --data-root imagenet=DIR coco=DIR). Cost: the sum of the five recipes.
"""

name = 'sbam_emae_vitb_300e'
work_dir = 'work_dirs/sbam_emae_vitb_300e'
stages = dict(
    pretrain=dict(kind='pretrain', config='configs/sbam/sbam_emae_vitb_300e.py', arm='sbam_emae'),
    probe=dict(kind='probe', config='configs/linear/vitb_quick_probe.py', init='pretrain'),
    linear=dict(kind='linear', config='configs/linear/vitb_linear_90e.py', init='pretrain'),
    finetune=dict(kind='finetune', config='configs/finetune/vitb_finetune_100e.py', init='pretrain'),
    coco=dict(kind='coco', config='configs/coco/mask_rcnn_vitb_fpn_lsj_100e.py', init='pretrain'),
    report=dict(kind='report'),
)
