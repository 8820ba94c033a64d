"""BootMAE, ViT-B/16, 800 epochs of ImageNet-1k (Dong et al., ECCV 2022).

    tools/dist_train.sh configs/bootmae/bootmae_vitb_800e.py 8

Published: linear 66.1 (block 10), fine-tune 84.2, ADE20K 49.1 mIoU (BootMAE release); COCO box AP 48.5 (from memory).
801 epochs, as released. The teacher's momentum rises from 0.999 to 0.9999 in 100 epochs and to 0.99999 in 300 more; the
feature loss has its full weight after a quarter of the training. mean = std = 0.5: downstream recipes follow.
Batch 4096 = 8 x 512. The release says 16 x 256, and calls it 2048 in its text; lr follows blr 1.5e-4 x batch / 256
either way, the floor 1e-4 does not. Other batches: --auto-scale-lr.
Cost: 6.7 h on 8 H100 at half of their bf16 peak, by FLOPs (93 GFLOP an image, with the teacher's pass); not measured.
"""

_base_ = [
    '../_base_/models/bootmae_vit.py',
    '../_base_/datasets/imagenet_pretrain.py',
    '../_base_/schedules/bootmae_pretrain.py',
    '../_base_/default_runtime.py',
]
model = dict(momentum=[(0, 0.999), (100, 0.9999), (400, 0.99999)])
default_hooks = dict(checkpoint=dict(interval=20))
