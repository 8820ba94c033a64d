"""Small scale, AttMask (hint) on CIFAR-10: as pretrain_ibot.py, hiding what the teacher's class token attends to.

python tools/train.py configs/evidence/pretrain_attmask.py --data-root CIFAR
"""

_base_ = './pretrain_ibot.py'

model = dict(
    masker=dict(
        masker=dict(_delete_=True, type='AttMask', variant='hint', ratio=(0.1, 0.5), show_max=0.1, round_down=True)
    )
)
