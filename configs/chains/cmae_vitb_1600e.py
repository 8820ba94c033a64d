"""CMAE, ViT-B/16, 1600 epochs, and its transfer: quick probe, linear probe, fine-tuning, Mask R-CNN on COCO.

    tools/transfer.py configs/chains/cmae_vitb_1600e.py --gpus 8

Published (Huang et al., TPAMI 2023): fine-tune 84.7. Linear probe and COCO are not in the release: MAE's protocols.
Needs data/imagenet and data/coco (or --data-root imagenet=DIR coco=DIR). Cost: the sum of the five recipes.
"""

name = 'cmae_vitb_1600e'
work_dir = 'work_dirs/cmae_vitb_1600e'
stages = dict(
    pretrain=dict(kind='pretrain', config='configs/cmae/cmae_vitb_1600e.py', arm='cmae'),
    probe=dict(kind='probe', config='configs/linear/vitb_quick_probe.py', init='pretrain'),
    linear=dict(kind='linear', config='configs/linear/vitb_linear_mean_90e.py', init='pretrain'),
    finetune=dict(kind='finetune', config='configs/finetune/vitb_finetune_cmae_long_100e.py', init='pretrain'),
    coco=dict(kind='coco', config='configs/coco/mask_rcnn_vitb_fpn_lsj_100e.py', init='pretrain'),
    report=dict(kind='report'),
)
