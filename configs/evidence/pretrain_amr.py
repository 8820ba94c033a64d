"""Evidence study, SBAM with the adaptive ratio of AMR, per image (docs/results/evidence_cifar10.md).

    python tools/train.py configs/evidence/pretrain_amr.py --data-root CIFAR

The released code's ratio of the batch: --cfg-options model.masker.ratio.scope=per_batch
"""

_base_ = './pretrain_sbam.py'
model = dict(masker=dict(ratio=dict(_delete_=True, type='AdaptiveRatio', base=0.75, delta_r=0.1, threshold=0.1)))
