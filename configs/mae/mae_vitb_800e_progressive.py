"""MAE at growing resolution, ViT-B/16, 800 epochs of ImageNet-1k: 160, then 192, then 224 px.

    tools/dist_train.sh configs/mae/mae_vitb_800e_progressive.py 8

Published: nothing; it changes the method, and MAE's figures do not apply. The sizes are those of DailyMAE.
320 epochs at 160 px, 240 at 192 px, 240 at 224 px. Batch 4096 = 8 x 512. Other batches: --auto-scale-lr.
Cost: 3.0 h on 8 H100 at half of their bf16 peak, by FLOPs (42 GFLOP an image in the mean, 0.72 of 224 px throughout);
not measured.
"""

_base_ = './mae_vitb_800e.py'
custom_hooks = [
    *_base_.custom_hooks,  # noqa: F821
    dict(type='mim_mm.ProgressiveResolutionHook', stages=[(0.0, 160), (0.4, 192), (0.7, 224)]),
]
