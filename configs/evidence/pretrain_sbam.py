"""Evidence study, SBAM: MAE with salience masks after one epoch of random ones (docs/results/evidence_cifar10.md).

python tools/train.py configs/evidence/pretrain_sbam.py --data-root CIFAR
"""

_base_ = './pretrain_mae.py'
model = dict(masker=dict(_delete_=True, type='SalienceMasking', ratio=0.75, random_epochs=0.5))
