"""EMAE with parts of equal salience, ViT-B/16, K = 4, 300 epochs of ImageNet-1k: published by nobody.

    tools/dist_train.sh configs/sbam/sbam_emae_vitb_300e.py 8

Published: none; EMAE with random parts has linear 68.4 (68.2 in the main table), fine-tune 83.8.
The first 100 epochs have random masks, as in SBAM's release: a random patch embedding has no salience to follow.
Batch 4096 = 8 GPUs x 256 images x 2 accumulated, each encoded in all its parts:
8 x 512 in one go is more than 80 GB (estimate of tools/plan.py). Other batches: --auto-scale-lr.
Consistency weight 1, as in the paper's formula. At small scale (CIFAR-10) it undid the gain over MAE, and 0.1 did not:
until a study at full size decides, --cfg-options model.consistency_weight=0.1 or model.consistency_ramp=40 is
the cautious choice (docs/methods.md).
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
