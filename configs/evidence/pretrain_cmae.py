"""Small-scale check on CIFAR-10 that CMAE learns: 64 patches of 4 px, a ViT of width 64, as pretrain_mae.py.

    python tools/train.py configs/evidence/pretrain_cmae.py --data-root CIFAR

One crop of 36 px and flip; the encoder gets the top left 32 px, the target encoder a window up to 3 px off with its
colours changed. Squares of 2 x 2 patches (8 px), 11 of 16 hidden. Batch 64: negatives come from the batch.
"""

_base_ = './pretrain_mae.py'
model = dict(
    type='CMAE',
    masker=dict(ratio=0.65),
    mask_unit=8,
    feature_decoder=dict(type='MAEDecoder', embed_dims=32, depth=1, num_heads=1),
    hidden_dims=128,
    out_dims=64,
    momentum=0.99,
    data_preprocessor=dict(type='mmpretrain.SelfSupDataPreprocessor'),
)
train_dataloader = dict(
    batch_size=64,
    dataset=dict(
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='FastRandomResizedCrop', scale=36, crop_ratio_range=(0.4, 1.0), interpolation='bicubic'),
            dict(type='FastRandomFlip', prob=0.5),
            dict(
                type='ShiftedViews',
                size=32,
                views=[
                    dict(),
                    dict(shift=3, colours=dict(jitter=(0.4, 0.4, 0.4, 0.1), jitter_prob=0.8, grey_prob=0.2)),
                ],
            ),
            dict(type='PackViews'),
        ],
    ),
)
