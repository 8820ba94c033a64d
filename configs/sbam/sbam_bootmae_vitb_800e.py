"""BootMAE with salience masks (SBAM), ViT-B/16, 800 epochs of ImageNet-1k (Choi et al., ECCV 2024).

    tools/dist_train.sh configs/sbam/sbam_bootmae_vitb_800e.py 8

Published: fine-tune 84.8 (BootMAE there: 84.1); nobody published code or settings of it, epochs not said.
147 of 196 patches are hidden as in BootMAE, but no blocks, no random rest and no roll: salience of the student's
embedded patches decides. The weights of the losses follow from these masks; the teacher still sees the whole image.
BootMAE's mean and spread of 0.5 leave the salience of random patch embeddings five times less peaked than ImageNet's
do; mask_diagnostics.jsonl has its quantiles. The first 100 epochs have random masks, as in SBAM's release.
Batch 4096 = 8 x 512. Other batches: --auto-scale-lr.
Cost: 6.7 h on 8 H100 at half of their bf16 peak, by FLOPs (93 GFLOP an image); not measured.
"""

_base_ = '../bootmae/bootmae_vitb_800e.py'
model = dict(masker=dict(_delete_=True, type='SalienceMasking', ratio=0.75, noise=0.5, random_epochs=100))
