"""I-JEPA, ViT-B/16, 600 epochs of ImageNet-1k (Assran et al., CVPR 2023). A config of ours: the release has none of it.

    tools/dist_train.sh configs/ijepa/ijepa_vitb_600e.py 8

Published: linear 72.9 (as quoted by EMAE), of the teacher (custom_hooks.0.prefix=teacher.), mean of the patches.
The optimisation of the released ViT-H/14; the predictor of 6 blocks is the default of the release's code and, from
memory, the paper's for this size. Batch 2048 = 8 x 256. Other batches: --auto-scale-lr.
Cost: 4.9 h on 8 H100 at half of their bf16 peak, by FLOPs (91 GFLOP an image, with the teacher's pass); not measured.
"""

_base_ = './ijepa_vith_300e.py'
model = dict(backbone=dict(arch='base', patch_size=16), predictor=dict(depth=6))
train_cfg = dict(max_epochs=600)
