"""BootMAE with salience masks and an adaptive ratio (SBAM + AMR), ViT-B/16, 800 epochs (Choi et al., ECCV 2024).

    tools/dist_train.sh configs/amr/amr_bootmae_vitb_800e.py 8

Published: fine-tune 84.8 (BootMAE there: 84.1) for SBAM; whether with AMR is not said.
Values: nobody published any. base 0.75 is the ratio without AMR; delta_r 0.10 is a third-party port's, untested. With
BootMAE's mean and spread salience is less peaked than in MAE (a quarter of the patches of a random embedding exceed
0.1, a hundredth 0.5), so a threshold that suits MAE does not carry over: 0.3 is a guess. Look at the quantiles in
mask_diagnostics.jsonl after epoch 100 first.
Images of a batch share one ratio (scope='per_batch', as SBAM's released code): BootMAE's decoders take one length.
Batch 4096 = 8 x 512. Other batches: --auto-scale-lr.
Cost: 6.7 h on 8 H100 at half of their bf16 peak at a mean ratio of 0.75, by FLOPs; not measured.
"""

_base_ = '../sbam/sbam_bootmae_vitb_800e.py'
model = dict(
    masker=dict(
        ratio=dict(_delete_=True, type='AdaptiveRatio', base=0.75, delta_r=0.1, threshold=0.3, scope='per_batch'),
    ),
)
