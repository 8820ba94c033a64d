"""EMAE on HiViT-B (Zhang et al., ICLR 2023), K = 4, 300 epochs of ImageNet-1k: a backbone the paper did not try.

    tools/dist_train.sh configs/emae/emae_hivitb_300e.py 8

Published: none. HiViT has no class token and no final norm, so the decoder normalises the latent itself.
Consistency weight 0.1, ours: the paper's formula, L_whole + L_consistency, has none (emae_vitb_800e_weight1.py). On
CIFAR-10 the larger the weight the worse: 1 costs 7 points of k-NN, 0.1 about half of one
(docs/results/evidence_cifar10.md); at full size nothing was tried.
Cost: not measured.
"""

_base_ = './emae_vitb_300e.py'
model = dict(
    backbone=dict(_delete_=True, type='mmpretrain.HiViT', arch='base', img_size=224, patch_size=16, rpe=False),
    decoder=dict(input_norm=True),
)
train_dataloader = dict(batch_size=128)
optim_wrapper = dict(accumulative_counts=4)
