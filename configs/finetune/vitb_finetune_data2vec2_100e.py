"""Fine-tuning of data2vec 2.0 ViT-B/16 on ImageNet-1k, for encoders of configs/data2vec/data2vec2_* (fairseq's code).

    tools/dist_train.sh configs/finetune/vitb_finetune_data2vec2_100e.py 8 --cfg-options init=CKPT

Published: none for this file, the release's mae_imagenet_clean.yaml and the defaults of its classifier.
Mean of the patches, then a fresh norm. AdamW (0.9, 0.95), lr 1e-3 for 512 images, layer decay 0.65 of the blocks alone
(patch embedding, class token and the norm in front have the full rate, positions are fixed), decay 0.05 of every tensor
(of norms and biases too, as in pretraining), drop path 0.1, 250,200 steps: 100 epochs, 16,000 of them warm-up, from and
to 1e-6. RandAugment 9/0.5, erasing 0.25, mixup 0.7 or cutmix 1.0 in nine of ten batches, smoothing 0.1, bf16 (fp16).
Not as released: the warm-up starts at 1e-6 times the layer's factor; drop path is linear over the 12 blocks, theirs has
0 and 0.0111 in the first two and goes from 0.0222 to 0.1 in the others.
Batch 8 x 64. Other batches: --auto-scale-lr. Other data: IMAGENET_ROOT=DIR and model.head.num_classes=N.
Cost: not measured here.
"""

_base_ = ['./vitb_finetune_100e.py']

model = dict(
    backbone=dict(type='mim_mm.PostNormViT'),
    head=dict(init_cfg=[dict(type='TruncNormal', layer='Linear', std=0.02)]),
    train_cfg=dict(augments=[dict(type='Mixup', alpha=0.7), dict(type='CutMix', alpha=1.0)], probs=[0.45, 0.45]),
)
train_dataloader = dict(batch_size=64)
optim_wrapper = dict(
    optimizer=dict(lr=1e-3, betas=(0.9, 0.95)),
    paramwise_cfg=dict(
        _delete_=True,
        layer_decay_rate=0.65,
        no_decay=[],
    ),
)
warmup = 16000 / 2502  # epochs of 2,502 steps
param_scheduler = [
    dict(type='mim_mm.WarmupLR', start_factor=1e-3, end=warmup, convert_to_iter_based=True),
    dict(type='mim_mm.HalfCosineLR', eta_min=1e-6, begin=warmup, convert_to_iter_based=True),
]
auto_scale_lr = dict(base_batch_size=512)
