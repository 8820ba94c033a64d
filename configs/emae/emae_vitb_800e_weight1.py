"""EMAE, ViT-B/16, K = 4, 800 epochs of ImageNet-1k, L_whole + L_consistency as the paper writes it (TPAMI 2024).

    tools/dist_train.sh configs/emae/emae_vitb_800e_weight1.py 8

Published: linear 70.4, fine-tune 84.0 (IN-1k top-1); with which weight of consistency is not said.
Batch 4096 = 8 GPUs x 256 images x 2 accumulated, each encoded in all its parts.
emae_vitb_800e.py with consistency weight 1 in place of 0.1. On CIFAR-10 that undid the gain over MAE
(docs/results/evidence_cifar10.md); at full size nothing was tried. The other reading of its normaliser, the mean over
all patches, is --cfg-options model.normalizer=all, half of the weight; a ramp: model.consistency_ramp=40 (epochs).
Cost: as emae_vitb_800e.py.
"""

_base_ = './emae_vitb_800e.py'
model = dict(consistency_weight=1.0)
