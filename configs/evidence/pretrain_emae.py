"""Evidence study, EMAE on CIFAR-10: K = 4 parallel parts, consistency weight 0.1 (docs/results/evidence_cifar10.md).

    python tools/train.py configs/evidence/pretrain_emae.py --data-root CIFAR

Data, encoder, decoder, batch and schedule are pretrain_mae.py's. Each image is encoded in four parts, so an epoch costs
the encoder what four epochs of MAE do.
"""

_base_ = './pretrain_mae.py'
model = dict(
    type='EMAE',
    masker=dict(_delete_=True, type='ParallelMasking', num_parts=4),
    consistency_weight=0.1,
)
custom_hooks = [dict(type='AgreementWatchHook')]
