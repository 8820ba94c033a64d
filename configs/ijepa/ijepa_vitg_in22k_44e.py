"""I-JEPA, ViT-g/16, 44 epochs of ImageNet-22k (Assran et al., CVPR 2023; configs/in22k_vitg16_ep44.yaml, released).

    tools/dist_train.sh configs/ijepa/ijepa_vitg_in22k_44e.py 8 --data-root DIR

Published: no ImageNet-1k linear figure in the release.
As ijepa_vith_in22k_66e.py but for the size (width 1408, 40 blocks, MLPs of 6144), patches of 16 px, a predictor of 16
blocks and the epochs. Batch 2048 = 8 x 256 (the release: 128 x 16); less memory: train_dataloader.batch_size=16
optim_wrapper.accumulative_counts=16, whose contexts are those of the release.
Cost: 37 h on 8 H100 at half of their bf16 peak, by FLOPs (840 GFLOP an image of 14.2 million); not measured.
"""

_base_ = './ijepa_vith_in22k_66e.py'
model = dict(backbone=dict(arch='eva-g', patch_size=16), predictor=dict(depth=16))
train_cfg = dict(max_epochs=44)
