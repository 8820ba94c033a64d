"""Fine-tuning of ViT-B/16 on ImageNet-1k as CMAE does for its 300-epoch encoder (Huang et al., TPAMI 2023).

    tools/dist_train.sh configs/finetune/vitb_finetune_cmae_100e.py 8 --cfg-options init=CKPT

Published: CMAE ViT-B 300 epochs 83.8. MAE's protocol, mean of the patch tokens, a fresh norm; lr 2e-3 for 1024 images
(base lr 5e-4), warm-up 5 from 1e-4 of it, cosine to 1e-6 in every layer, layer decay 0.65, drop path 0.1.
For the 1600-epoch encoder half the rate: vitb_finetune_cmae_long_100e.py.
Batch 8 x 128.
Cost: not measured here.
"""

_base_ = ['./vitb_finetune_100e.py']

param_scheduler = [
    dict(type='mim_mm.WarmupLR', start_factor=1e-4, end=5, convert_to_iter_based=True, like='beit'),
    dict(type='mim_mm.HalfCosineLR', eta_min=1e-6, begin=5, convert_to_iter_based=True, like='beit'),
]
