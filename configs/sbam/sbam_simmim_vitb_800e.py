"""SimMIM with salience masks (SBAM), ViT-B/16 at 224 px, 800 epochs of ImageNet-1k.

    tools/dist_train.sh configs/sbam/sbam_simmim_vitb_800e.py 8

Published: none; the paper tries SBAM on MAE, BootMAE, iBOT and CMAE.
The first 100 epochs have random masks, as in SBAM's release: a random patch embedding has no salience to follow.
Salience is that of 32-px squares, the mean of their 2 x 2 patch embeddings;
no position embedding enters, the backbone having none at its input.
Batch 2048 = 8 x 256. Other batches: --auto-scale-lr.
Cost: 7.6 h on 8 H100 at half of their bf16 peak, by FLOPs (106 GFLOP an image); not measured.
"""

_base_ = '../simmim/simmim_vitb_800e.py'
model = dict(masker=dict(_delete_=True, type='SalienceMasking', ratio=0.6, noise=0.5, random_epochs=100))
custom_hooks = [
    dict(type='MaskDiagnosticsHook', interval=500),
]
