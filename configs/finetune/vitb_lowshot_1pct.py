"""Fine-tuning of ViT-B/16 on 1 % of ImageNet-1k's labels: iBOT's protocol (Zhou et al., ICLR 2022, and its release).

    LOWSHOT_LIST=/lists/1percent.txt tools/dist_train.sh configs/finetune/vitb_lowshot_1pct.py 8 \
        --cfg-options init=CKPT

Published: iBOT's ViT-S about 61.9 (from memory); none for ViT-B, MAE or EMAE with this recipe. DeiT's protocol
(vitb_finetune_mocov3_150e.py) for 1000 epochs of the subset at lr 5e-6 x batch / 512, that is 1e-5 for 1024 images,
which is also the release's floor: constant after the warm-up. iBOT keeps the first layer of its projection head under
the classifier; other pretrainings have none, so the head is linear on the class token here.
LOWSHOT_LIST is the published list (SimCLR v2: 12,811 file names, one a line), absolute or below IMAGENET_ROOT; other
data: train_dataloader.dataset.ann_file= train_dataloader.dataset.fraction=0.01 (own stratified draw).
Batch 8 x 128.
Cost: not measured here.
"""

_base_ = ['./vitb_finetune_mocov3_150e.py']

train_dataloader = dict(dataset=dict(type='mim_mm.LowShotImages', ann_file=r"""{{$LOWSHOT_LIST:meta/1percent.txt}}"""))
optim_wrapper = dict(optimizer=dict(lr=1e-5))
param_scheduler = [
    dict(type='mim_mm.WarmupLR', start_factor=0.1, end=5, like='timm'),
    dict(type='mim_mm.HalfCosineLR', eta_min=1e-5, begin=5, like='timm'),
]
train_cfg = dict(max_epochs=1000, val_interval=50)
default_hooks = dict(checkpoint=dict(interval=50))
