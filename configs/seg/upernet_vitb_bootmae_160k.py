"""UperNet with BootMAE's ViT-B/16 on ADE20K, 160,000 iterations at 512 px (Dong et al., ECCV 2022; its release).

    tools/dist_train.sh configs/seg/upernet_vitb_bootmae_160k.py 8 --cfg-options init=CKPT

Published, 800 epochs: mIoU 49.1 (49.12). As upernet_vitb_160k.py but lr 4e-4, gradients clipped at a norm of 3, and
mean = std = 127.5, as its pretraining.
Cost: not measured here.
"""

_base_ = ['./upernet_vitb_160k.py']

model = dict(data_preprocessor=dict(mean=[127.5] * 3, std=[127.5] * 3))
optim_wrapper = dict(optimizer=dict(lr=4e-4), clip_grad=dict(max_norm=3.0))
