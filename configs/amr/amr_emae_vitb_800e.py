"""EMAE whose number of parts follows the image (salience parts + AMR), ViT-B/16, 800 epochs: published by nobody.

    tools/dist_train.sh configs/amr/amr_emae_vitb_800e.py 8

Published: none.
Values: nobody published any (the repository has no default and refuses its own README command). base 0.75 is the
ratio without AMR; delta_r 0.10 and threshold 0.5 are those of a third-party port, untested. With a random patch
embedding 1 % of the patches exceed 0.5 (64 photographs) and all ratios are near 0.65: hence the random epochs first.
Check mask_diagnostics.jsonl after epoch 100 before you trust the threshold.
K is 1 / (1 - ratio) rounded: 3 parts for ratio 0.65, 4 for 0.75, 7 for 0.85; every patch is still encoded once.
Batch 4096 = 8 GPUs x 128 images x 4 accumulated, each encoded in all its parts:
8 x 512 in one go is more than 80 GB (estimate of tools/plan.py). Other batches: --auto-scale-lr.
Consistency weight 0.1, ours: the paper's formula, L_whole + L_consistency, has none (emae_vitb_800e_weight1.py). On
CIFAR-10 the larger the weight the worse: 1 costs 7 points of k-NN, 0.1 about half of one
(docs/results/evidence_cifar10.md); at full size nothing was tried.
Cost: 17 h on 8 H100 at half of their bf16 peak where K is 4, by FLOPs; more parts cost more; not measured.
"""

_base_ = '../sbam/sbam_emae_vitb_800e.py'
model = dict(
    masker=dict(
        ratio=dict(type='AdaptiveRatio', base=0.75, delta_r=0.1, threshold=0.5, scope='per_image'),
    ),
)
train_dataloader = dict(batch_size=128)
optim_wrapper = dict(accumulative_counts=4)
