# CMAE's optimisation: MAE's AdamW and rate, a warm-up from 1e-4 of it that is at its peak one iteration before its end.
# Exempt from decay, by parts of names as the release has them: norms of the transformers, biases, class and mask
# tokens. The gains of the BatchNorms in projector and predictor are decayed.
_base_ = './mae_pretrain.py'
optim_wrapper = dict(
    paramwise_cfg=dict(
        _delete_=True,
        custom_keys=dict(
            ln=dict(decay_mult=0.0),
            bias=dict(decay_mult=0.0),
            pos_embed=dict(decay_mult=0.0),
            mask_token=dict(decay_mult=0.0),
            cls_token=dict(decay_mult=0.0),
        ),
    ),
)
param_scheduler = [
    dict(type='WarmupLR', start_factor=1e-4, by_epoch=True, end=40, convert_to_iter_based=True, like='beit'),
    dict(type='HalfCosineLR', by_epoch=True, begin=40, convert_to_iter_based=True, like='beit'),
]
