"""MSN whose large anchor loses its salient patches (SBAM), ViT-S/16, 800 epochs (masks: Choi et al., ECCV 2024).

    tools/dist_train.sh configs/sbam/sbam_msn_vits_800e.py 8

Published: nothing; SBAM was not tried on MSN. Masks are those of each image, where MSN shares one in the batch;
as many patches are dropped, 30 of 196, after 100 epochs of random ones.
Everything else: msn_vits_800e.py.
Cost: 86 h on 8 H100 at half of their fp32 peak, by FLOPs (81 GFLOP an image, all its views); not measured.
"""

_base_ = '../msn/msn_vits_800e.py'
model = dict(masker=dict(_delete_=True, type='SalienceMasking', ratio=0.15, random_epochs=100))
custom_hooks = [
    dict(type='CollapseHook', interval=100),
    dict(type='MaskDiagnosticsHook', interval=500),
]
