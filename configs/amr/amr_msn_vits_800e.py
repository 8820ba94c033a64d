"""MSN whose large anchor loses salient patches, as many as it has (SBAM + AMR), ViT-S/16, 800 epochs.

    tools/dist_train.sh configs/amr/amr_msn_vits_800e.py 8

Published: nothing; SBAM and AMR (Choi et al., ECCV 2024) were not tried on MSN.
As sbam_msn_vits_800e.py, the ratio following the image between 0.05 and 0.25; anchors differ in length and run packed.
Values: nobody published any; delta_r 0.1 and threshold 0.5 are those of the other AMR recipes, untested here.
Everything else: msn_vits_800e.py.
Cost: 86 h on 8 H100 at half of their fp32 peak, by FLOPs (81 GFLOP an image, all its views); not measured.
"""

_base_ = '../sbam/sbam_msn_vits_800e.py'
model = dict(
    masker=dict(
        _delete_=True,
        type='SalienceMasking',
        ratio=dict(type='AdaptiveRatio', base=0.15, delta_r=0.1, threshold=0.5, scope='per_image'),
        random_epochs=100,
    ),
)
