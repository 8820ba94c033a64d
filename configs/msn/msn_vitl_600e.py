"""MSN, ViT-L/16, 600 epochs of ImageNet-1k (Assran et al., ECCV 2022).

    tools/dist_train.sh configs/msn/msn_vitl_600e.py 8

Published: nothing in numbers in the release.
The release has weights of this size and no configuration: its 600 epochs are in the README; that 30 % of the patches
are dropped is from memory, and everything else is that of ViT-S. Check them before a paper rests on this recipe.
Batch 1024 = 8 x 128, never accumulated; as msn_vits_800e.py otherwise. In bf16 where the release trains
in fp32 (optim_wrapper.dtype=float32).
Cost: 57 h on 8 H100 at half of their bf16 peak, by FLOPs (1055 GFLOP an image, all its views); not measured.
"""

_base_ = './msn_vits_800e.py'
model = dict(backbone=dict(arch='large'), masker=dict(ratio=0.3))
train_cfg = dict(max_epochs=600)
optim_wrapper = dict(dtype='bfloat16')
