"""iBOT with salience masks and a ratio for each view (SBAM + AMR), ViT-B/16, 400 epochs (Choi et al., ECCV 2024).

    tools/dist_train.sh configs/amr/amr_ibot_vitb_400e.py 8

Published: 71.5 -> 74.4 for "iBoT (ViT-B)" with SBAM, an unlabelled figure that is no fine-tuning of ViT-B (iBOT's own
is 84.0). No code of it was released: the place is our reading.
As sbam_ibot_vitb_400e.py, the ratio following the view between 0.1 and 0.5 (iBOT's range) where it is masked at all.
Values: nobody published any; threshold 0.1 is ours, untested: with a random patch embedding 1 % of iBOT's patches
exceed 0.5 and 4 % 0.1.
Everything else, what is from memory included: ibot_vitb_400e.py.
Cost: 17 h on 8 H100 at half of their bf16 peak, by FLOPs (485 GFLOP an image, all its views); not measured.
"""

_base_ = '../ibot/ibot_vitb_400e.py'
model = dict(
    masker=dict(
        _delete_=True,
        type='DrawnRatio',
        ratio=None,
        share=0.5,
        masker=dict(
            type='SalienceMasking',
            ratio=dict(type='AdaptiveRatio', base=0.3, delta_r=0.2, threshold=0.1, scope='per_image'),
        ),
    ),
)
custom_hooks = [
    dict(type='FreezeHook', parts=['last_layer'], epochs=3),
    dict(type='CollapseHook', interval=100),
    dict(type='MaskDiagnosticsHook', interval=500),
]
