"""I-JEPA, ViT-H/14, 300 epochs of ImageNet-1k (Assran et al., CVPR 2023; configs/in1k_vith14_ep300.yaml, released).

    tools/dist_train.sh configs/ijepa/ijepa_vith_300e.py 8

Published: linear 79.3 (from memory), of the teacher (custom_hooks.0.prefix=teacher.), mean of the patches.
Batch 2048 = 8 x 256 (the release: 16 x 128). Contexts are cut to the shortest of a GPU's batch, so that a larger batch
on each GPU sees a little less of each image. Other batches: --auto-scale-lr.
Cost: 18.9 h on 8 H100 at half of their bf16 peak, by FLOPs (702 GFLOP an image, with the teacher's pass); not measured.
"""

_base_ = [
    '../_base_/models/ijepa_vit.py',
    '../_base_/datasets/imagenet_ijepa.py',
    '../_base_/schedules/ijepa_pretrain.py',
    '../_base_/default_runtime.py',
]
default_hooks = dict(checkpoint=dict(interval=10))
