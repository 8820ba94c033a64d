"""EMAE at growing resolution, ViT-B/16, K = 4, 800 epochs of ImageNet-1k: 160, then 192, then 224 px.

    tools/dist_train.sh configs/emae/emae_vitb_800e_progressive.py 8

Published: nothing; it changes the method, and EMAE's figures do not apply. The sizes are those of DailyMAE.
320 epochs at 160 px (4 x 25 patches), 240 at 192 px (4 x 36), 240 at 224 px (4 x 49).
Batch 4096 = 8 GPUs x 256 images x 2 accumulated. Other batches: --auto-scale-lr.
Consistency weight 1, as in the paper's formula. At small scale (CIFAR-10) it undid the gain over MAE, and 0.1 did not:
until a study at full size decides, --cfg-options model.consistency_weight=0.1 or model.consistency_ramp=40 is
the cautious choice (docs/methods.md).
Cost: 12 h on 8 H100 at half of their bf16 peak, by FLOPs (168 GFLOP an image in the mean, 0.72 of 224 px throughout);
not measured.
"""

_base_ = './emae_vitb_800e.py'
custom_hooks = [
    *_base_.custom_hooks,  # noqa: F821
    dict(type='mim_mm.ProgressiveResolutionHook', stages=[(0.0, 160), (0.4, 192), (0.7, 224)]),
]
