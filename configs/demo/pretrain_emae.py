"""Demo, EMAE pretraining on unlabelled digits: 4 parts, a small ViT, grey pictures.

    python tools/train.py configs/demo/pretrain_emae.py

Data, encoder, decoder, batch and schedule are pretrain_mae.py's.
"""

_base_ = './pretrain_mae.py'
model = dict(
    type='EMAE',
    masker=dict(_delete_=True, type='ParallelMasking', num_parts=4),
    decoder=dict(fp32_head=True),
    consistency_weight=0.1,
)
custom_hooks = [dict(type='AgreementWatchHook')]
