"""CMAE with salience masks (SBAM), ViT-B/16, 300 epochs of ImageNet-1k (Choi et al., ECCV 2024).

    tools/dist_train.sh configs/sbam/sbam_cmae_vitb_300e.py 8

Published: fine-tune 84.5 (CMAE there: 83.8); epochs not said. No code of it was released: the place, the patch
embedding of the online view before any block, is our reading.
Single patches, 128 of 196 hidden, as many as CMAE hides: salience chooses patches. CMAE's squares of 32 px:
model.mask_unit=32 model.masker.ratio=0.65, salience then being that of the mean of each square.
The first 100 epochs have random masks, since a random patch embedding has no salience to follow.
Batch 4096 = 8 x 512, never accumulated; see cmae_vitb_300e.py.
Cost: 3.0 h on 8 H100 at half of their bf16 peak, by FLOPs (112 GFLOP an image), about 40 GB each; not measured.
"""

_base_ = '../cmae/cmae_vitb_300e.py'
model = dict(
    mask_unit=16,
    masker=dict(_delete_=True, type='SalienceMasking', ratio=128 / 196, noise=0.5, random_epochs=100),
)
custom_hooks = [
    dict(type='MaskDiagnosticsHook', interval=500),
]
