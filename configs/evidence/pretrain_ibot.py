"""Small scale, iBOT on CIFAR-10: as pretrain_dino.py, with masks, and patches that weigh a fifth.

    python tools/train.py configs/evidence/pretrain_ibot.py --data-root CIFAR

Blocks of at least (8 // 3) ** 2 = 4 patches on the grid of 8 x 8; large views of 64 patches, small ones of 16. At equal
weight hidden patches of 4 px, which their neighbours give away, leave the class token little to learn.
"""

_base_ = './pretrain_dino.py'
epochs = 3

model = dict(
    type='iBOT',
    masker=dict(
        type='DrawnRatio',
        ratio=None,
        share=0.5,
        masker=dict(type='BlockMasking', ratio=(0.1, 0.5), fill='none', round_down=True),
    ),
    patch_temp=dict(start=0.04, end=0.04, epochs=0),
    patch_weight=0.2,
)
train_cfg = dict(max_epochs=epochs)
