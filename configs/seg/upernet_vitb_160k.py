"""UperNet with a ViT-B/16 on ADE20K, 160,000 iterations at 512 px: the segmentation of MAE (He et al., CVPR 2022).

    tools/dist_train.sh configs/seg/upernet_vitb_160k.py 8 --cfg-options init=CKPT

Published, MAE ViT-B 1600 epochs: mIoU 48.1. MAE took BEiT's recipe and searched rates that it does not print; those
here are mmsegmentation's, which reproduces it (48.13): AdamW 1e-4, wd 0.05, layer decay 0.65, drop path 0.1, batch
16 = 8 x 2, warm-up 1500, then a straight line to zero. Blocks 4, 6, 8, 12 without a final norm. Tests: one scale,
windows of 512 px 341 px apart. Relative positions start at zero and a layer scale at one.
Differences: bf16 instead of fp16; scores in fp32; positions and class token exempt from weight decay.
Other masks: tools/transfer.py --images DIR --masks DIR (docs/segmentation.md). One GPU: train_dataloader.batch_size=16.
Cost: not measured here (mmsegmentation: 10 GB for 2 images in fp16).
"""

_base_ = [
    '../_base_/models/upernet_vitb.py',
    '../_base_/datasets/ade20k.py',
    '../_base_/schedules/seg_160k.py',
]
default_scope = 'mmseg'
