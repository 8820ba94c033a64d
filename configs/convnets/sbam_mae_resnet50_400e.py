"""MAE with salience masks (SBAM) on ResNet-50 by masked convolutions, 400 epochs of ImageNet-1k.

    tools/dist_train.sh configs/convnets/sbam_mae_resnet50_400e.py 8

Published: nothing. The encoder under masks is that of SparK (Tian et al., ICLR 2023), with its ratio of 0.6: 30 of 49
squares of 32 px are hidden; BatchNorm takes statistics of visible places of all GPUs. Masks are SBAM's, on the pixels
of each square and so from the start, with no epochs of random ones; decoder and optimisation are MAE's.
Downstream: any ResNet-50 of mmpretrain or mmdet with init=CKPT.
Batch 4096 = 8 x 512. Other batches: --auto-scale-lr.
Cost: 1.2 h on 8 H100 at half of their bf16 peak, by FLOPs (32 GFLOP an image); not measured.
"""

_base_ = ['../sbam/sbam_mae_vitb_400e.py']

model = dict(
    backbone=dict(
        _delete_=True,
        type='mmpretrain.ResNet',
        depth=50,
        out_indices=(3,),
        norm_cfg=dict(type='SyncBN', requires_grad=True),
    ),
    masker=dict(ratio=0.6, random_epochs=0),
    img_size=224,
)
