"""EMAE at growing resolution, ViT-B/16, K = 4, 800 epochs of ImageNet-1k: 160, then 192, then 224 px.

    tools/dist_train.sh configs/emae/emae_vitb_800e_progressive.py 8

Published: nothing; it changes the method, and EMAE's figures do not apply. The sizes are those of DailyMAE.
320 epochs at 160 px (4 x 25 patches), 240 at 192 px (4 x 36), 240 at 224 px (4 x 49).
Batch 4096 = 8 GPUs x 256 images x 2 accumulated. Other batches: --auto-scale-lr.
Consistency weight 0.1, ours: the paper's formula, L_whole + L_consistency, has none (emae_vitb_800e_weight1.py). On
CIFAR-10 the larger the weight the worse: 1 costs 7 points of k-NN, 0.1 about half of one
(docs/results/evidence_cifar10.md); at full size nothing was tried.
Cost: 12 h on 8 H100 at half of their bf16 peak, by FLOPs (168 GFLOP an image in the mean, 0.72 of 224 px throughout);
not measured.
"""

_base_ = './emae_vitb_800e.py'
custom_hooks = [
    *_base_.custom_hooks,  # noqa: F821
    dict(type='mim_mm.ProgressiveResolutionHook', stages=[(0.0, 160), (0.4, 192), (0.7, 224)]),
]
