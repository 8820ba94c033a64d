"""Evidence study, EMAE's ablation of masks: complementary masks, no consistency.

python tools/train.py configs/evidence/pretrain_emae_complementary.py --data-root CIFAR
"""

_base_ = './pretrain_emae.py'
model = dict(masker=dict(_delete_=True, type='ComplementaryMasking'), consistency_weight=0.0)
