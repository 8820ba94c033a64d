"""BootMAE, ViT-L/16, 800 epochs of ImageNet-1k (Dong et al., ECCV 2022).

    tools/dist_train.sh configs/bootmae/bootmae_vitl_800e.py 8

Published: linear 77.1 (block 18), fine-tune 85.9 (BootMAE release).
As bootmae_vitb_800e.py but for the size, the teacher's momentum, which stays at 0.9999 after 100 epochs, and the last
learning rate, 1e-5. The release's script has 128 images a GPU, on how many it does not say: batch 4096 is from memory.
Batch 4096 = 8 x 512. Other batches: --auto-scale-lr.
Cost: 19 h on 8 H100 at half of their bf16 peak, by FLOPs (264 GFLOP an image); not measured.
"""

_base_ = './bootmae_vitb_800e.py'
model = dict(backbone=dict(arch='large'), momentum=[(0, 0.999), (100, 0.9999)])
param_scheduler = [
    dict(type='WarmupLR', by_epoch=True, end=40, convert_to_iter_based=True, like='beit'),
    dict(type='HalfCosineLR', eta_min=1e-5, by_epoch=True, begin=40, convert_to_iter_based=True, like='beit'),
]
