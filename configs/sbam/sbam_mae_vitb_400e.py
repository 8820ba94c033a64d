"""MAE with salience masks (SBAM), ViT-B/16, 400 epochs of ImageNet-1k (Choi et al., ECCV 2024).

    tools/dist_train.sh configs/sbam/sbam_mae_vitb_400e.py 8

Published: fine-tune 83.6 (MAE there: 82.9); whether with AMR and after how many epochs is not said.
The first 100 epochs of the one schedule have random masks, since a random patch embedding has no salience to follow;
the release resumes from a checkpoint of 100 such epochs.
Batch 4096 = 8 x 512. Other batches: --auto-scale-lr.
Cost: 2.1 h on 8 H100 at half of their bf16 peak, by FLOPs (59 GFLOP an image, and 59 MFLOP for
the salience); not measured.
"""

_base_ = '../mae/mae_vitb_800e.py'
train_cfg = dict(max_epochs=400)
model = dict(masker=dict(_delete_=True, type='SalienceMasking', ratio=0.75, noise=0.5, random_epochs=100))
custom_hooks = [
    dict(type='MaskDiagnosticsHook', interval=500),
]
