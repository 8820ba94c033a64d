"""Every registered masker with settings that fit a grid: what the property tests and the smoke table run over."""

from mim_mm.masking import AdaptiveRatio
from mim_mm.registry import MODELS

NEED_ATTENTION = ('AttentionMasking', 'AttMask')


def amr(base=0.7, **options):
    return dict(type='AdaptiveRatio', base=base, delta_r=0.2, threshold=0.2, **options)


def registered():
    """Names of all maskers of the package, from the registry."""
    MODELS.get('RandomMasking')  # imports the rooms
    return {
        name
        for name, cls in MODELS.module_dict.items()
        if cls.__module__.startswith('mim_mm.masking.') and cls is not AdaptiveRatio
    }


def table(grid=(4, 4), parts=4, ratio=0.75):
    """``{name: config}`` for images of ``grid`` patches."""
    rows, columns = grid
    side = 2 if rows % 2 == columns % 2 == 0 else 3
    return {
        'random': dict(type='RandomMasking', ratio=ratio),
        'random-shared': dict(type='RandomMasking', ratio=ratio, shared=True),
        'independent': dict(type='IndependentMasking', num_parts=parts, ratio=ratio),
        'parallel': dict(type='ParallelMasking', num_parts=parts),
        'complementary': dict(type='ComplementaryMasking', num_parts=parts),
        'sbam': dict(type='SalienceMasking', ratio=ratio),
        'sbam-scaled': dict(type='SalienceMasking', ratio=ratio, logit_scale=0.1),
        'sbam-amr': dict(type='SalienceMasking', ratio=amr()),
        'sbam-amr-batch': dict(type='SalienceMasking', ratio=amr(scope='per_batch')),
        'block': dict(type='BlockMasking', ratio=ratio, grid=grid),
        'block-beit': dict(type='BlockMasking', ratio=ratio, fill='none', grid=grid),
        'block-cae': dict(type='BlockMasking', ratio=ratio, fill='blocks', grid=grid),
        'block-ibot': dict(type='BlockMasking', ratio=(0.2, ratio), fill='none', grid=grid),
        'block-range': dict(type='BlockMasking', ratio=(0.2, ratio), grid=grid),
        'grid': dict(type='GridMasking', stride=side, grid=grid),
        'grid-fixed': dict(type='GridMasking', stride=side, place='fixed', grid=grid),
        'grid-cell': dict(type='GridMasking', stride=side, place='cell', grid=grid),
        'am': dict(type='AttentionMasking', mask_ratio=ratio),
        'am-released': dict(type='AttentionMasking', mask_ratio=ratio, as_released=True, grid=grid),
        'amt': dict(type='AttentionMasking', mask_ratio=0.45, throw_ratio=0.3),
        'attmask-high': dict(type='AttMask', ratio=ratio),
        'attmask-low': dict(type='AttMask', variant='low', ratio=(0.3, 0.6)),
        'attmask-hint': dict(type='AttMask', variant='hint', ratio=ratio, show_max=0.4),
        'attmask-gate': dict(type='AttMask', ratio=ratio, masking_prob=0.5),
        'attmask-drawn': dict(type='AttMask', variant='low', ratio=ratio, hide_prob=0.5),
        'block-rounded': dict(type='BlockMasking', ratio=(0.2, ratio), fill='none', grid=grid, round_down=True),
        'drawn': dict(type='DrawnRatio', masker=dict(type='RandomMasking'), ratio=(0.3, 0.6), share=0.7),
        'drawn-sbam': dict(type='DrawnRatio', masker=dict(type='SalienceMasking', ratio=amr()), ratio=None, share=0.7),
        'multi-block': dict(type='MultiBlockMasking', num_targets=2, target_scale=(0.2, 0.3), min_keep=1, grid=grid),
        'inverse-block': dict(type='InverseBlockMasking', ratio=ratio, num_parts=parts, block=2, adjust=0.1, grid=grid),
        # cells of several patches round by the cell: tests/algorithms/test_pixio.py
        'cells': dict(type='CellMasking', masker=dict(type='RandomMasking', ratio=ratio), cell=1, grid=grid),
        'salience-balanced': dict(type='SalienceParallelMasking', num_parts=parts),
        'salience-graded': dict(type='SalienceParallelMasking', num_parts=parts, mode='graded'),
        'salience-balanced-amr': dict(type='SalienceParallelMasking', ratio=amr()),
        'salience-graded-amr': dict(type='SalienceParallelMasking', mode='graded', ratio=amr()),
        'salience-balanced-amr-batch': dict(type='SalienceParallelMasking', ratio=amr(scope='per_batch')),
    }


# Their numbers of visible patches follow the image (salience, the blocks that fitted, the gate).
PER_IMAGE = {
    'sbam-amr', 'salience-balanced-amr', 'salience-graded-amr', 'block-beit', 'block-ibot', 'block-range',
    'attmask-gate', 'attmask-drawn', 'block-rounded', 'drawn', 'drawn-sbam',
}  # fmt: skip
# Equal within a batch, but following its salience, or drawn for it.
PER_BATCH = {'sbam-amr-batch', 'salience-balanced-amr-batch', 'multi-block'}
# They throw patches away, for which a sequence must not keep its length.
THROWING = {'amt', 'multi-block'}
# Their parts are disjoint and show every patch once.
COVERING = {name for name in table() if name.startswith('salience-') or name == 'parallel'}
