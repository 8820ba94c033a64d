"""Evidence study, EMAE x SBAM x AMR: parts dealt by salience, their number follows the image.

python tools/train.py configs/evidence/pretrain_emae_sbam_amr.py --data-root CIFAR
"""

_base_ = './pretrain_emae.py'
model = dict(
    masker=dict(
        _delete_=True,
        type='SalienceParallelMasking',
        ratio=dict(type='AdaptiveRatio', base=0.75, delta_r=0.1, threshold=0.1),
        random_epochs=0.5,
    )
)
