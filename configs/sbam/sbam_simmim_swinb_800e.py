"""SimMIM with salience masks (SBAM), Swin-B at 192 px, 800 epochs of ImageNet-1k.

    tools/dist_train.sh configs/sbam/sbam_simmim_swinb_800e.py 8

Published: none; the paper tries SBAM on MAE, BootMAE, iBOT and CMAE.
The first 100 epochs have random masks, as in SBAM's release: a random patch embedding has no salience to follow.
Salience is that of 32-px squares, the mean of their 8 x 8 patch embeddings;
no position embedding enters, the backbone having none at its input.
Batch 2048 = 8 x 256. Other batches: --auto-scale-lr.
Cost: 4.9 h on 8 H100 at half of their bf16 peak, by FLOPs (68 GFLOP an image); not measured.
"""

_base_ = '../simmim/simmim_swinb_800e.py'
model = dict(masker=dict(_delete_=True, type='SalienceMasking', ratio=0.6, noise=0.5, random_epochs=100))
custom_hooks = [
    dict(type='MaskDiagnosticsHook', interval=500),
]
