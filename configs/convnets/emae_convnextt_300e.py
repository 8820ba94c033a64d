"""EMAE on ConvNeXt-T by masked convolutions, 300 epochs of ImageNet-1k: 4 parts of 16 of 64 squares of 32 px.

    tools/dist_train.sh configs/convnets/emae_convnextt_300e.py 8

Published: nothing. The encoder under masks is that of SparK (Tian et al., ICLR 2023) and ConvNeXt V2; parts, loss and
decoder are EMAE's, optimisation is MAE's. Images of 256 px, so that four parts are equally large; the encoder then
takes any size. Downstream: any ConvNeXt-T of mmpretrain or mmdet with init=CKPT, e.g.
configs/coco/mask_rcnn_convnextt_fpn_ms_36e.py.
Batch 4096 = 8 GPUs x 256 images x 2 accumulated, each encoded in all its parts. Other batches: --auto-scale-lr.
Cost: 4.9 h on 8 H100 at half of their bf16 peak, by FLOPs (181 GFLOP an image); not measured.
"""

_base_ = ['../emae/emae_vitb_300e.py']

model = dict(
    backbone=dict(_delete_=True, type='mmpretrain.ConvNeXt', arch='tiny', out_indices=(3,)),
    img_size=256,
)
train_pipeline = [
    dict(type='LazyLoadImageFromFile'),
    dict(type='FastRandomResizedCrop', scale=256, crop_ratio_range=(0.2, 1.0), interpolation='bicubic'),
    dict(type='FastRandomFlip', prob=0.5),
    dict(type='PackImage'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
