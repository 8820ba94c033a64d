"""Evidence study, EMAE's ablation of masks: four independent random masks, no consistency.

python tools/train.py configs/evidence/pretrain_emae_independent.py --data-root CIFAR
"""

_base_ = './pretrain_emae.py'
model = dict(
    masker=dict(_delete_=True, type='IndependentMasking', num_parts=4, ratio=0.75),
    consistency_weight=0.0,
)
