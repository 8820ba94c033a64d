"""Small scale, iBOT on CIFAR-10: as pretrain_dino.py, with masks.

    python tools/train.py configs/evidence/pretrain_ibot.py --data-root CIFAR

Blocks of at least (8 // 3) ** 2 = 4 patches on the grid of 8 x 8; large views of 64 patches, small ones of 16.
"""

_base_ = './pretrain_dino.py'

model = dict(
    type='iBOT',
    masker=dict(
        type='DrawnRatio',
        ratio=None,
        share=0.5,
        masker=dict(type='BlockMasking', ratio=(0.1, 0.5), fill='none', round_down=True),
    ),
    teacher_temp=dict(start=0.04, end=0.04, epochs=0),
    patch_temp=dict(start=0.04, end=0.04, epochs=0),
)
