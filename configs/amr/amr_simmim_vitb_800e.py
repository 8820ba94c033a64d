"""SimMIM with salience masks and a ratio for each image (SBAM + AMR), ViT-B/16 at 224 px, 800 epochs.

    tools/dist_train.sh configs/amr/amr_simmim_vitb_800e.py 8

Published: none.
Values: nobody published any (the repository has no default and refuses its own README command). base 0.6 is the
ratio without AMR; delta_r 0.10 and threshold 0.5 are those of a third-party port, untested. With a random patch
embedding 3 % of the squares exceed 0.5 (64 photographs) and all ratios are near 0.51: hence the random epochs first.
Check mask_diagnostics.jsonl after epoch 100 before you trust the threshold.
The sequence keeps its length, so a ratio for each image costs nothing.
Batch 2048 = 8 x 256. Other batches: --auto-scale-lr.
Cost: 7.6 h on 8 H100 at half of their bf16 peak, by FLOPs (106 GFLOP an image); not measured.
"""

_base_ = '../sbam/sbam_simmim_vitb_800e.py'
model = dict(
    masker=dict(
        ratio=dict(_delete_=True, type='AdaptiveRatio', base=0.6, delta_r=0.1, threshold=0.5, scope='per_image'),
    ),
)
