"""Evidence study, BootMAE on CIFAR-10: two epochs on 64 patches of 4 px, a ViT of width 64 (docs/results/recipes.md).

    python tools/train.py configs/evidence/pretrain_bootmae.py --data-root CIFAR

Sizes, images and optimiser of pretrain_mae.py, BootMAE's mask and 0.5 / 0.5 statistics. The teacher of the release
(0.999 to 0.99999 in 400 epochs) would not move in 6,250 steps: 0.99 to 0.999 in one epoch. Pixels have a variance floor
of 0.02, as in the other arms: the patches of these images are often flat.
"""

_base_ = './pretrain_mae.py'
model = dict(
    _delete_=True,
    _scope_='mim_mm',
    type='BootMAE',
    data_preprocessor=dict(type='ImgDataPreprocessor', mean=[127.5] * 3, std=[127.5] * 3),
    backbone=dict(
        type='mmpretrain.BEiTViT',
        arch=dict(embed_dims=64, num_layers=4, num_heads=2, feedforward_channels=256),
        img_size=32,
        patch_size=4,
        out_type='raw',
        final_norm=True,
        use_abs_pos_emb=True,
        use_rel_pos_bias=False,
        layer_scale_init_value=0,
    ),
    masker=dict(type='BlockMasking', ratio=0.75, block_ratio=39 / 64, max_block=20, fill='blocks', roll=3),
    decoder_dims=32,
    decoder_depth=1,
    momentum=[(0, 0.99), (1, 0.999)],
    norm_eps=0.02,
)
warmup = 0.2
param_scheduler = [
    dict(type='WarmupLR', by_epoch=True, end=warmup, convert_to_iter_based=True, like='beit'),
    dict(type='HalfCosineLR', by_epoch=True, begin=warmup, convert_to_iter_based=True, like='beit'),
]
train_cfg = dict(max_epochs=2)
