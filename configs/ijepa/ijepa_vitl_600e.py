"""I-JEPA, ViT-L/16, 600 epochs of ImageNet-1k (Assran et al., CVPR 2023). A config of ours: the release has none of it.

    tools/dist_train.sh configs/ijepa/ijepa_vitl_600e.py 8

Published: linear 77.5 (as quoted by EMAE), of the teacher (custom_hooks.0.prefix=teacher.), mean of the patches.
The optimisation and the predictor of the released ViT-H/14. Batch 2048 = 8 x 256. Other batches: --auto-scale-lr.
Cost: 15.2 h on 8 H100 at half of their bf16 peak, by FLOPs (281 GFLOP an image); not measured.
"""

_base_ = './ijepa_vitb_600e.py'
model = dict(backbone=dict(arch='large'), predictor=dict(depth=12))
