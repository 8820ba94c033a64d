"""Evidence study, EMAE with consistency weight 1, raised from 0 over the first half of training.

python tools/train.py configs/evidence/pretrain_emae_ramp.py --data-root CIFAR
"""

_base_ = './pretrain_emae.py'
model = dict(consistency_weight=1.0, consistency_ramp=1)
