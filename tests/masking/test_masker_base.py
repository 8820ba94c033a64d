"""What may be asked of a masker: counts against drawn plans, names, the clock; also of one without the base class."""

import subprocess
import sys

import pytest
import torch
from masker_table import NEED_ATTENTION, PER_BATCH, PER_IMAGE, table
from tiny_run import ROOT

from mim_mm.clock import Clock
from mim_mm.masking import AdaptiveRatio, AttentionMasking, AttMask, RandomMasking, SalienceMasking, base
from mim_mm.masking.plan import MaskPlan
from mim_mm.recipe_facts import MASKER_DEFAULTS, variant
from mim_mm.registry import MODELS

FIXED = sorted(set(table()) - PER_IMAGE - PER_BATCH - {'attmask-low'})  # which draws one ratio for the whole batch


def drawn(config, patches):
    tokens = torch.randn(2, patches, 4, generator=torch.Generator().manual_seed(0))
    options = dict(attention=torch.rand(2, patches)) if config['type'] in NEED_ATTENTION else {}
    return MODELS.build(dict(config))(tokens, torch.Generator().manual_seed(1), **options)


@pytest.mark.parametrize('grid', [(4, 4), (14, 14)])
@pytest.mark.parametrize('name', FIXED)
def test_counts_are_those_of_every_plan(name, grid):
    config, patches = table(grid)[name], grid[0] * grid[1]
    plan = drawn(config, patches)
    hidden, thrown = plan.mask.sum(-1)[0].tolist(), plan.thrown.sum(-1)[0].tolist()
    assert MODELS.build(dict(config)).counts(patches) == list(zip(plan.lengths[0].tolist(), hidden, thrown))


def adaptive(base):
    return AdaptiveRatio(base=base, delta_r=0.1, threshold=0.5)


@pytest.mark.parametrize('config, counts', [
    (dict(type='AttMask'), [(137, 59, 0)]),  # ceil(196 * 0.3)
    (dict(type='AttMask', variant='hint', ratio=0.75), [(49 + 14, 147 - 14, 0)]),  # int(19.6 * 0.75) of the 19 best
    (dict(type='BlockMasking', ratio=(0.1, 0.5), fill='none'), [(137, 59, 0)]),
    (dict(type='BlockMasking', fill='none'), [(121, 75, 0)]),
    (dict(type='SalienceMasking', ratio=adaptive(0.6), random_epochs=3), [(78, 118, 0)]),
    (dict(type='SalienceParallelMasking', ratio=adaptive(0.75)), [(49, 147, 0)] * 4),
    (dict(type='SalienceParallelMasking', ratio=adaptive(0.8), num_parts=4), [(40, 156, 0)] + [(39, 157, 0)] * 4),
    (dict(type='AttentionMasking', mask_ratio=0.45, throw_ratio=0.4, random_epochs=3), [(30, 89, 77)]),
    (dict(type='RandomMasking', predict=0.25), [(49, 49, 98)]),
    (dict(type='ComplementaryMasking'), [(49, 147, 0), (147, 49, 0)]),
])  # fmt: skip
def test_counts_of_ratios_that_vary_are_their_middle(config, counts):
    assert MODELS.build(config).counts(196) == counts


def test_a_callable_that_is_no_masker_of_ours_serves_as_one():
    def own(tokens, generator=None):
        return MaskPlan.from_scores(torch.zeros(*tokens.shape[:2])[:, None].expand(-1, 2, -1), 5)

    assert not base.needs_attention(own) and not base.fixed_count(own) and base.fixed_overlap(own)
    assert base.counts(own, 16) == [(5, 11, 0)] * 2 and base.published(own) == 'function'
    base.set_clock(own, Clock.at_epoch(3))

    class Old:
        def set_epoch(self, epoch):
            self.told = epoch

    old = Old()
    base.set_clock(old, Clock.at_epoch(3))
    assert old.told == 3


def test_a_base_without_a_call_says_what_is_missing():
    class Nothing(base.Masker):
        pass

    with pytest.raises(NotImplementedError, match='Nothing is no masker yet: define __call__'):
        Nothing()(torch.zeros(1, 4, 1))


@pytest.mark.parametrize('config', [
    *({'type': kind, **values} for kind, values in MASKER_DEFAULTS.items()),
    *(config for config in table().values() if 'ratio' in config),
    dict(type='ComplementaryMasking'), dict(type='GridMasking'), dict(type='AttentionMasking'),
])  # fmt: skip
def test_a_built_masker_has_the_name_that_its_config_has_in_reports(config):
    """The report builds nothing: it goes by what the config states (``mim_mm.recipe_facts``)."""
    assert MODELS.build(dict(config)).published == variant(config)


def test_a_range_where_one_number_belongs_is_refused():
    with pytest.raises(ValueError, match=r'mask_ratio=\(0.3, 0.6\).*AttMask and BlockMasking'):
        AttentionMasking(mask_ratio=(0.3, 0.6))
    with pytest.raises(ValueError, match='throw_ratio=None'):
        AttentionMasking(throw_ratio=None)
    assert AttMask(ratio=(0.3, 0.6)).ratio == (0.3, 0.6)


def test_thrown_patches_are_the_end_of_a_permutation():
    plan = RandomMasking(0.75, predict=0.25)(torch.zeros(3, 16, 1), torch.Generator().manual_seed(0))
    assert torch.equal(plan.order.sort(-1).values, torch.arange(16).expand(3, 1, 16))
    states = torch.zeros(3, 1, 16).scatter_(
        2, plan.order, torch.tensor([0.0] * 4 + [1.0] * 4 + [2.0] * 8).expand(3, 1, 16)
    )
    assert torch.equal(plan.mask, states == 1) and torch.equal(plan.thrown, states == 2)
    assert torch.equal(plan.kept, plan.order[..., :8]) and torch.equal(plan.hidden, plan.order[..., 4:8])
    assert plan.hidden_per_image().tolist() == [4, 4, 4]
    assert torch.equal(plan.hidden_index(), (plan.hidden + 16 * torch.arange(3)[:, None, None]).flatten())


def test_patches_are_thrown_only_from_equal_parts():
    order = torch.arange(16).expand(1, 2, 16)
    for options, words in (
        (dict(num_visible=(4, 5)), 'equally long|same number'),
        (dict(num_visible=(4, 4), partition=True), 'share out the image'),
        (dict(num_visible=(8, 8)), 'left to be hidden'),
    ):
        with pytest.raises(ValueError, match=words):
            MaskPlan(order, num_thrown=8, **options)


def test_a_warm_up_reads_the_clock():
    masker = SalienceMasking(random_epochs=2)
    with pytest.raises(RuntimeError, match='ClockHook.*Clock.at_epoch'):
        masker(torch.randn(1, 16, 4))
    for epoch, random in ((0, True), (1, True), (2, False)):
        masker.set_clock(Clock.at_epoch(epoch))
        assert masker.warming_up is random


@pytest.mark.parametrize('module', ['mim_mm.masking', 'mim_mm.losses', 'mim_mm.clock'])
def test_masks_and_losses_need_torch_and_mmengine_only(module):
    code = f'import sys, {module}; print(sorted({{"mmpretrain", "mmcv", "mmdet"}} & set(sys.modules)))'
    done = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == '[]', done.stdout + done.stderr
