"""CMAE with salience masks and a ratio for each image (SBAM + AMR), ViT-B/16, 300 epochs (Choi et al., ECCV 2024).

    tools/dist_train.sh configs/amr/amr_cmae_vitb_300e.py 8

Published: nothing for CMAE with AMR.
Values: nobody published any. base 128/196 is CMAE's own count without AMR; delta_r 0.10 and threshold 0.5 are those of
a third-party port for MAE, untested. Check the quantiles of salience in mask_diagnostics.jsonl after epoch 100 before
you trust the threshold. Images differ in length and are packed, not padded.
Batch 4096 = 8 x 512, never accumulated; see cmae_vitb_300e.py.
Cost: 3.0 h on 8 H100 at half of their bf16 peak, by FLOPs (112 GFLOP an image), about 40 GB each; not measured.
"""

_base_ = '../sbam/sbam_cmae_vitb_300e.py'
model = dict(
    masker=dict(
        ratio=dict(_delete_=True, type='AdaptiveRatio', base=128 / 196, delta_r=0.1, threshold=0.5, scope='per_image'),
    ),
)
