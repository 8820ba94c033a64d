"""I-JEPA, ViT-H/14, 66 epochs of ImageNet-22k (Assran et al., CVPR 2023; configs/in22k_vith14_ep66.yaml, released).

    tools/dist_train.sh configs/ijepa/ijepa_vith_in22k_66e.py 8 --data-root DIR

Published: no ImageNet-1k linear figure in the release.
As ijepa_vith_300e.py but for the data, the epochs and a warm-up of 3. DIR has the images of ImageNet-22k below train/.
Batch 2048 = 8 x 256 (the release: 64 x 32). Other batches: --auto-scale-lr.
Cost: 46 h on 8 H100 at half of their bf16 peak, by FLOPs (702 GFLOP an image of 14.2 million); not measured.
"""

_base_ = './ijepa_vith_300e.py'
train_cfg = dict(max_epochs=66)
param_scheduler = [
    dict(type='WarmupLR', start_factor=0.2, by_epoch=True, end=3, convert_to_iter_based=True, like='msn'),
    dict(type='HalfCosineLR', eta_min=1e-6, by_epoch=True, begin=3, convert_to_iter_based=True, like='msn'),
    dict(type='HalfCosineWeightDecay', eta_min=0.4, by_epoch=True, convert_to_iter_based=True, like='msn'),
]
default_hooks = dict(checkpoint=dict(interval=2))
