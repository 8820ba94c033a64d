"""MAE with salience masks and a ratio for each image (SBAM + AMR), ViT-B/16, 400 epochs (Choi et al., ECCV 2024).

    tools/dist_train.sh configs/amr/amr_mae_vitb_400e.py 8

Published: fine-tune 83.6 (MAE there: 82.9) for SBAM; whether with AMR and after how many epochs is not said.
Values: nobody published any (the repository has no default and refuses its own README command). base 0.75 is the
ratio without AMR; delta_r 0.10 and threshold 0.5 are those of a third-party port, untested. With a random patch
embedding 1 % of the patches exceed 0.5 (64 photographs) and all ratios are near 0.65: hence the random epochs first.
Check mask_diagnostics.jsonl after epoch 100 before you trust the threshold.
Images differ in length and are packed, not padded. scope='per_batch' is what the released code does.
Batch 4096 = 8 x 512. Other batches: --auto-scale-lr.
Cost: 2.1 h on 8 H100 at half of their bf16 peak at a mean ratio of 0.75, by FLOPs; not measured.
"""

_base_ = '../sbam/sbam_mae_vitb_400e.py'
model = dict(
    masker=dict(
        ratio=dict(_delete_=True, type='AdaptiveRatio', base=0.75, delta_r=0.1, threshold=0.5, scope='per_image'),
    ),
)
