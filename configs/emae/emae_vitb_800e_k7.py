"""EMAE, ViT-B/16, K = 7, 800 epochs of ImageNet-1k (Li et al., TPAMI 2024).

    tools/dist_train.sh configs/emae/emae_vitb_800e_k7.py 8

Published: linear 68.1 (K table, row d).
Batch 4096 = 8 x 512 images, each encoded in all its parts. Other batches: --auto-scale-lr, or accumulate with
--cfg-options optim_wrapper.accumulative_counts=2 train_dataloader.batch_size=256.
Cost: about 1.4 times K = 4 by FLOPs, since every part is decoded whole; not measured.
Last run: never at full size; a few iterations of a shrunken model by tests/test_dist_train.py.
"""

_base_ = './emae_vitb_800e.py'
model = dict(masker=dict(num_parts=7))
