"""Evidence study on CIFAR-10: do the orderings of EMAE's and SBAM's tables hold at a size that two CPU cores can run?

    tools/transfer.py configs/chains/evidence.py --data-root evidence=CIFAR --gpus 0 --jobs 2

Every arm is MAE's or EMAE's small recipe with one thing changed, three seeds each, five for those that the claim rests
on. All are measured by k-NN and the quick probe, the claim's own arms also by linear probe and fine-tuning; `scratch`
is the random encoder. What is done is skipped, so that the study can be cut off anywhere; `--only` names arms.
docs/results/evidence_cifar10.md has the design and the budget.
"""

name = 'evidence'
work_dir = 'work_dirs/evidence'

_here = 'configs/evidence/'
_knn = dict(
    name='knn',
    path='knn.json',
    command='python tools/knn.py {config} {checkpoint} --work-dir {work_dir} --resize 32 --crop 32 --workers 0',
)
_weight, _ratio, _parts = 'model.consistency_weight', 'model.masker.ratio', 'model.masker.num_parts'
_long = {'train_cfg.max_epochs': 8}
# arm -> recipe, what is changed in it; the first four have five seeds
_claim = dict(
    mae=('pretrain_mae', {}),
    emae_w0=('pretrain_emae', {_weight: 0.0}),
    emae=('pretrain_emae', {}),
    sbam=('pretrain_sbam', {}),
)
_others = dict(
    # equal encoder FLOPs; K = 8 and 16 against their ratios
    mae_4x=('pretrain_mae', _long),
    mae_r875=('pretrain_mae', {_ratio: 0.875}),
    mae_r9375=('pretrain_mae', {_ratio: 0.9375}),
    emae_k8=('pretrain_emae', {_parts: 8}),
    emae_k16=('pretrain_emae', {_parts: 16}),
    # masks without consistency
    independent=('pretrain_emae_independent', {}),
    complementary=('pretrain_emae_complementary', {}),
    # the weight of consistency
    emae_w003=('pretrain_emae', {_weight: 0.03}),
    emae_w03=('pretrain_emae', {_weight: 0.3}),
    emae_w05=('pretrain_emae', {_weight: 0.5}),
    emae_w1=('pretrain_emae', {_weight: 1.0}),
    emae_w1_ramp=('pretrain_emae_ramp', {}),
    emae_w0_4x=('pretrain_emae', {_weight: 0.0, **_long}),
    emae_w1_4x=('pretrain_emae', {_weight: 1.0, **_long}),
    # salience against random
    mae_r5=('pretrain_mae', {_ratio: 0.5}),
    sbam_r5=('pretrain_sbam', {_ratio: 0.5}),
    mae_r6=('pretrain_mae', {_ratio: 0.6}),
    sbam_r6=('pretrain_sbam', {_ratio: 0.6}),
    mae_r9=('pretrain_mae', {_ratio: 0.9}),
    sbam_r9=('pretrain_sbam', {_ratio: 0.9}),
    sbam_at_once=('pretrain_sbam', {'model.masker.random_epochs': 0}),
    amr=('pretrain_amr', {}),
    amr_batch=('pretrain_amr', {'model.masker.ratio.scope': 'per_batch'}),
    emae_sbam_amr=('pretrain_emae_sbam_amr', {}),
)
_arms = {**_claim, **_others}
_seeds = {_arm: [0, 1, 2, 3, 4] if _arm in _claim else [0, 1, 2] for _arm in _arms}

stages = {
    f'pretrain_{_arm}': dict(
        kind='pretrain', config=f'{_here}{_recipe}.py', options=dict(_options), arm=_arm, seeds=_seeds[_arm]
    )
    for _arm, (_recipe, _options) in _arms.items()
}
stages.update(
    {
        f'probe_{_arm}': dict(
            kind='probe',
            config=f'{_here}quick_probe.py',
            init=f'pretrain_{_arm}',
            arm=_arm,
            seeds=_seeds[_arm],
            artifacts=[_knn],
        )
        for _arm in _arms
    }
)
# The lines below everything: no encoder at all, and the random one.
stages['probe_pixels'] = dict(
    kind='probe',
    config=f'{_here}pixels_probe.py',
    init=None,
    arm='pixels',
    artifacts=[dict(_knn, command=_knn['command'].replace('{checkpoint}', 'random'))],  # nothing to load
)
stages['probe_scratch'] = dict(
    kind='probe', config=f'{_here}quick_probe.py', init=None, arm='scratch', seeds=[0, 1, 2, 3, 4], artifacts=[_knn]
)
stages.update(
    {
        f'{_kind}_{_arm}': dict(
            kind=_kind,
            config=f'{_here}{_kind}.py',
            arm=_arm,
            seeds=[0, 1, 2, 3, 4],
            init=None if _arm == 'scratch' else f'pretrain_{_arm}',
        )
        for _kind in ('linear', 'finetune')
        for _arm in (*_claim, 'scratch')
    }
)
stages['report'] = dict(kind='report')
controls = ['pixels', 'scratch']
series = [
    dict(
        title='EMAE (K parts) against MAE at the ratio 1 - 1/K',
        x='K',
        lines={
            'EMAE, K parts': {4: 'emae_w0', 8: 'emae_k8', 16: 'emae_k16'},
            'MAE, ratio 1 - 1/K': {4: 'mae', 8: 'mae_r875', 16: 'mae_r9375'},
        },
    ),
    dict(
        title='Weight of consistency',
        x='weight',
        lines={
            'EMAE, K = 4': {
                0: 'emae_w0',
                0.03: 'emae_w003',
                0.1: 'emae',
                0.3: 'emae_w03',
                0.5: 'emae_w05',
                1: 'emae_w1',
            },
            'with a ramp': {1: 'emae_w1_ramp'},
            'four times as long': {0: 'emae_w0_4x', 1: 'emae_w1_4x'},
        },
    ),
    dict(
        title='Salience against random masks',
        x='mask ratio',
        lines={
            'random': {0.5: 'mae_r5', 0.6: 'mae_r6', 0.75: 'mae', 0.875: 'mae_r875', 0.9: 'mae_r9'},
            'SBAM': {0.5: 'sbam_r5', 0.6: 'sbam_r6', 0.75: 'sbam', 0.9: 'sbam_r9'},
        },
    ),
]

_EQUAL, _MASKS, _WEIGHT = 'EMAE against MAE', 'Masks, without consistency', 'Consistency'
_SALIENCE, _ALL = 'SBAM and AMR', 'EMAE with SBAM and AMR'


def _order(part, better, worse, claim, published=None, **more):
    return dict(part=part, claim=claim, better=better, worse=worse, published=published, **more)


orderings = [
    # EMAE against MAE; linear probes on ImageNet after 100 epochs are what was published
    _order(_EQUAL, 'emae_w0', 'mae', 'K = 4 parts beat one, at equal epochs, without consistency', '+4.6 (63.4, 58.8)'),
    _order(_EQUAL, 'emae', 'mae', 'EMAE (weight 0.1) beats MAE at equal epochs', '+6.1'),
    _order(_EQUAL, 'emae_k8', 'mae_r875', 'K = 8 beats ratio 7/8 at equal epochs', '+7.2'),
    _order(_EQUAL, 'emae_k16', 'mae_r9375', 'K = 16 beats ratio 15/16 at equal epochs', '+6.1'),
    _order(_EQUAL, 'emae_w0', 'mae_4x', 'K = 4 beats MAE at equal encoder FLOPs (MAE four times as long)'),
    _order(_EQUAL, 'mae', 'scratch', 'pretraining by MAE beats the random encoder'),
    # masks
    _order(_MASKS, 'emae_w0', 'independent', 'parallel masks beat K independent ones', '+0.9 (63.4, 62.5)'),
    _order(_MASKS, 'independent', 'complementary', 'independent masks beat complementary ones', '+15.8 (62.5, 46.7)'),
    _order(_MASKS, 'mae', 'complementary', 'one random mask beats complementary ones', '+12.1 (58.8, 46.7)'),
    # consistency
    _order(_WEIGHT, 'emae_w003', 'emae_w0', 'weight 0.03 beats none', '+1.6 (65.0, 63.4), weight not known'),
    _order(_WEIGHT, 'emae', 'emae_w0', 'weight 0.1 beats none'),
    _order(_WEIGHT, 'emae_w03', 'emae_w0', 'weight 0.3 beats none'),
    _order(_WEIGHT, 'emae_w05', 'emae_w0', 'weight 0.5 beats none (as 1 with the mean over all patches)'),
    _order(_WEIGHT, 'emae_w1', 'emae_w0', 'weight 1 beats none'),
    _order(_WEIGHT, 'emae_w1_ramp', 'emae_w0', 'weight 1 with a ramp beats none'),
    _order(_WEIGHT, 'emae_w1_ramp', 'emae_w1', 'a ramp helps weight 1'),
    _order(_WEIGHT, 'emae_w1_4x', 'emae_w0_4x', 'weight 1 beats none at four times the length'),
    # salience
    *(
        _order(_SALIENCE, _sbam, _mae, f'SBAM beats random masks at ratio {_value}', _found)
        for _sbam, _mae, _value, _found in (
            ('sbam_r5', 'mae_r5', 0.5, None),
            ('sbam_r6', 'mae_r6', 0.6, None),
            ('sbam', 'mae', 0.75, 'better at every ratio'),
            ('sbam_r9', 'mae_r9', 0.9, None),
        )
    ),
    _order(_SALIENCE, 'sbam', 'sbam_at_once', 'a quarter of random epochs first helps SBAM'),
    _order(_SALIENCE, 'amr', 'sbam', 'AMR (per image) helps SBAM'),
    _order(_SALIENCE, 'amr', 'amr_batch', 'AMR per image beats AMR per batch'),
    _order(_ALL, 'emae_sbam_amr', 'emae_w0', 'SBAM and AMR help EMAE'),
]
