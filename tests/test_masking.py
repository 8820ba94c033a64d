"""Mask plans against Algorithm 1 of EMAE and MAE's shuffling, restated with plain loops."""

import pytest
import torch

from mim_mm.masking import (
    ComplementaryMasking,
    IndependentMasking,
    MaskPlan,
    ParallelMasking,
    RandomMasking,
    num_hidden,
)


def tokens(batch=3, patches=16):
    return torch.zeros(batch, patches, 4)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


MASKERS = [
    RandomMasking(0.75),
    RandomMasking(0.6),
    ParallelMasking(2),
    ParallelMasking(4),
    ParallelMasking(8),
    IndependentMasking(4),
    IndependentMasking(3, ratio=0.5),
    ComplementaryMasking(4),
]


@pytest.mark.parametrize('masker', MASKERS, ids=lambda m: type(m).__name__)
@pytest.mark.parametrize('seed', range(3))
def test_visible_and_hidden_partition_the_patches(masker, seed):
    plan = masker(tokens(), generator(seed))
    assert plan.mask.dtype == torch.bool and plan.visible.dtype == torch.long
    assert plan.mask.shape == (3, plan.num_parts, 16)
    for b in range(3):
        for k in range(plan.num_parts):
            visible = [v for v in plan.visible[b, k].tolist() if v >= 0]
            hidden = plan.mask[b, k].nonzero().flatten().tolist()
            assert sorted(visible + hidden) == list(range(16))
            assert len(visible) == plan.lengths[b, k] == plan.num_visible[k]


@pytest.mark.parametrize('masker', MASKERS, ids=lambda m: type(m).__name__)
def test_masks_come_from_the_generator_alone(masker):
    first = masker(tokens(), generator(5)).order
    torch.manual_seed(99)
    assert torch.equal(first, masker(tokens(), generator(5)).order)
    assert not torch.equal(first, masker(tokens(), generator(6)).order)


@pytest.mark.parametrize('num_parts', [2, 4, 7, 14])
def test_parallel_masking_is_algorithm_1(num_parts):
    patches = 28
    noise = torch.rand(2, patches, generator=generator(3))
    plan = ParallelMasking(num_parts)(tokens(2, patches), generator(3))
    for b in range(2):
        ids = sorted(range(patches), key=lambda n: noise[b, n].item())
        size = patches // num_parts
        for i in range(num_parts):
            mine = ids[i * size : (i + 1) * size]
            assert plan.visible[b, i].tolist() == mine
            assert [n for n in range(patches) if not plan.mask[b, i, n]] == sorted(mine)
        # Every patch is visible in exactly one part.
        assert (~plan.mask[b]).sum(dim=0).tolist() == [1] * patches


def test_partition_plans_list_hidden_groups_in_ascending_order():
    plan = ParallelMasking(4)(tokens(), generator())
    groups = plan.visible
    for part in range(4):
        expected = torch.cat([groups[:, g] for g in range(4) if g != part], dim=1)
        assert torch.equal(plan.order[:, part, 4:], expected)


def test_random_masking_keeps_what_mae_keeps():
    noise = torch.rand(3, 16, generator=generator(7))
    plan = RandomMasking(0.75)(tokens(), generator(7))
    assert torch.equal(plan.visible[:, 0], noise.argsort(dim=1)[:, :4])


@pytest.mark.parametrize('patches, ratio, hidden', [(196, 0.75, 147), (196, 0.6, 118), (10, 0.9, 9), (196, 0.5, 98), (49, 0.65, 32)])
def test_one_rounding_rule(patches, ratio, hidden):
    assert num_hidden(patches, ratio) == hidden


def test_complementary_parts_complete_each_other():
    plan = ComplementaryMasking(4)(tokens(), generator())
    assert plan.num_visible == (4, 12)
    assert torch.equal(plan.mask[:, 0], ~plan.mask[:, 1])
    assert (plan.visible[:, 0, 4:] == -1).all()


def test_a_count_that_does_not_divide_is_refused_with_the_nearest_that_do():
    with pytest.raises(ValueError, match=r'196 patches.*num_parts=5.*num_parts=4 or 7'):
        ParallelMasking(5)(tokens(1, 196))


@pytest.mark.parametrize('ratio', [0.0, 1.0, 1.5, -0.1])
def test_ratios_outside_the_open_unit_interval_are_refused(ratio):
    with pytest.raises(ValueError, match=str(ratio)):
        RandomMasking(ratio)


def test_a_ratio_that_leaves_nothing_visible_is_refused():
    with pytest.raises(ValueError, match='at least one patch'):
        RandomMasking(0.99)(tokens())


def test_a_plan_checks_its_parts():
    order = torch.arange(4).expand(1, 2, 4)
    with pytest.raises(ValueError, match='num_visible has 1 entries'):
        MaskPlan(order, (2,))
    with pytest.raises(ValueError, match='between 1 and 4'):
        MaskPlan(order, (2, 5))
    with pytest.raises(ValueError, match='long tensor'):
        MaskPlan(order.float(), (2, 2))
