"""EMAE with parts of equal salience, ViT-B/16, K = 4, 300 epochs of ImageNet-1k: published by nobody.

    tools/dist_train.sh configs/sbam/sbam_emae_vitb_300e.py 8

Published: none; EMAE with random parts has linear 68.4 (68.2 in the main table), fine-tune 83.8.
The first 100 epochs have random masks, as in SBAM's release: a random patch embedding has no salience to follow.
Batch 4096 = 8 GPUs x 256 images x 2 accumulated, each encoded in all its parts:
8 x 512 in one go is more than 80 GB (estimate of tools/plan.py). Other batches: --auto-scale-lr.
Consistency weight 0.1, ours: the paper's formula, L_whole + L_consistency, has none (emae_vitb_800e_weight1.py). On
CIFAR-10 the larger the weight the worse: 1 costs 7 points of k-NN, 0.1 about half of one
(docs/results/evidence_cifar10.md); at full size nothing was tried.
Cost: 6.3 h on 8 H100 at half of their bf16 peak, by FLOPs (233 GFLOP an image); not measured.
"""

_base_ = '../emae/emae_vitb_300e.py'
model = dict(
    masker=dict(_delete_=True, type='SalienceParallelMasking', num_parts=4, mode='balanced', random_epochs=100),
)
custom_hooks = [
    dict(type='MaskDiagnosticsHook', interval=500),
    dict(type='AgreementWatchHook', interval=100),
]
