"""EMAE on HiViT-B (Zhang et al., ICLR 2023), K = 4, 300 epochs of ImageNet-1k: a backbone the paper did not try.

    tools/dist_train.sh configs/emae/emae_hivitb_300e.py 8

Published: none. HiViT has no class token and no final norm, so the decoder normalises the latent itself.
Cost: not measured.
Last run: never at full size; two steps of a shrunken model by tests/test_algorithms.py.
"""

_base_ = './emae_vitb_300e.py'
model = dict(
    backbone=dict(_delete_=True, type='mmpretrain.HiViT', arch='base', img_size=224, patch_size=16, rpe=False),
    decoder=dict(input_norm=True),
)
train_dataloader = dict(batch_size=128)
optim_wrapper = dict(accumulative_counts=4)
