"""MoCo v3, ViT-B/16, 300 epochs, and its transfer: quick probe, linear probe, fine-tuning, Mask R-CNN on COCO.

    tools/transfer.py configs/chains/mocov3_vitb_300e.py --gpus 8

Published: linear 76.7, fine-tune 83.2 (Chen, Xie and He, ICCV 2021); COCO box 47.9 after 600 epochs in the EMAE paper.
Everything starts from the encoder, not from the momentum encoder, as the release evaluates it; k-NN: tools/knn.py.
Needs data/imagenet and data/coco (or --data-root imagenet=DIR coco=DIR). Cost: the sum of the recipes.
"""

name = 'mocov3_vitb_300e'
work_dir = 'work_dirs/mocov3_vitb_300e'
stages = dict(
    pretrain=dict(kind='pretrain', config='configs/mocov3/mocov3_vitb_300e.py', arm='mocov3'),
    probe=dict(kind='probe', config='configs/linear/vitb_quick_probe.py', init='pretrain'),
    linear=dict(kind='linear', config='configs/linear/vitb_mocov3_90e.py', init='pretrain'),
    finetune=dict(kind='finetune', config='configs/finetune/vitb_finetune_mocov3_150e.py', init='pretrain'),
    coco=dict(kind='coco', config='configs/coco/mask_rcnn_vitb_fpn_lsj_100e.py', init='pretrain'),
    report=dict(kind='report'),
)
