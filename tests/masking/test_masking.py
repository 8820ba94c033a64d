"""Mask plans against Algorithm 1 of EMAE and MAE's shuffling, restated with plain loops."""

import math

import numpy
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
from mim_mm.masking.plan import draw_on_host, draw_uniform, true_places


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
    ParallelMasking(5),
    ParallelMasking(16),
    IndependentMasking(4),
    IndependentMasking(3, ratio=0.5),
    ComplementaryMasking(4),
    ComplementaryMasking(3),
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


@pytest.mark.parametrize(
    'patches, ratio, hidden', [(196, 0.75, 147), (196, 0.6, 118), (10, 0.9, 9), (196, 0.5, 98), (49, 0.65, 32)]
)
def test_one_rounding_rule(patches, ratio, hidden):
    assert num_hidden(patches, ratio) == hidden


def test_fixed_ratios_hide_the_number_that_was_written():
    from fractions import Fraction

    for patches in (10, 30, 49, 100, 196, 256, 1000):
        for written in [f'{k / 100:.2f}' for k in range(2, 99)] + ['0.123456789', '0.3333333333']:
            exact = Fraction(written) * patches
            if exact <= patches - 1:
                assert num_hidden(patches, float(written)) == math.ceil(exact), (patches, written)
        for part in range(1, patches):
            assert num_hidden(patches, part / patches) == part
    for parts in range(2, 50):  # the share that parallel masks hide, as Python evaluates it
        assert num_hidden(14 * parts, 1 - 1 / parts) == 14 * (parts - 1)
    assert num_hidden(10, 0.1 + 0.2) == 3 and num_hidden(10, 0.5000000001) == 6


def test_complementary_parts_complete_each_other():
    plan = ComplementaryMasking(4)(tokens(), generator())
    assert plan.num_visible == (4, 12)
    assert torch.equal(plan.mask[:, 0], ~plan.mask[:, 1])
    assert (plan.visible[:, 0, 4:] == -1).all()


@pytest.mark.parametrize('num_parts, patches', [(5, 16), (3, 16), (5, 196), (15, 16), (16, 16)])
def test_parallel_parts_differ_by_at_most_one_patch_where_k_does_not_divide(num_parts, patches):
    noise = torch.rand(2, patches, generator=generator(3))
    plan = ParallelMasking(num_parts)(tokens(2, patches), generator(3))
    assert plan.partition and not plan.ragged and plan.uniform == (patches % num_parts == 0)
    assert sum(plan.num_visible) == patches and max(plan.num_visible) - min(plan.num_visible) <= 1
    for b in range(2):
        pieces = numpy.array_split(noise[b].argsort().numpy(), num_parts)  # the extra patches go to the first pieces
        for i, piece in enumerate(pieces):
            assert plan.visible[b, i, : len(piece)].tolist() == piece.tolist() and plan.lengths[b, i] == len(piece)
            hidden = numpy.concatenate([other for j, other in enumerate(pieces) if j != i])
            assert plan.order[b, i, len(piece) :].tolist() == hidden.tolist()
        assert (~plan.mask[b]).sum(dim=0).tolist() == [1] * patches


@pytest.mark.parametrize('masker', [ParallelMasking, ComplementaryMasking])
def test_more_parts_than_patches_are_refused(masker):
    with pytest.raises(ValueError, match=r'16 patches.*num_parts=17.*between 2 and 16'):
        masker(17)(tokens())


def test_complementary_parts_follow_the_one_rounding_rule():
    plan = ComplementaryMasking(3)(tokens(), generator())
    assert plan.num_visible == (16 - num_hidden(16, 1 - 1 / 3), num_hidden(16, 1 - 1 / 3)) == (5, 11)
    assert torch.equal(plan.mask[:, 0], ~plan.mask[:, 1])


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


LENGTHS = [[4, 0, 2], [1, 6, 0], [4, 3, 2]]


def random_order(batch=3, parts=3, patches=6):
    return torch.rand(batch, parts, patches, generator=generator()).argsort(dim=-1)


@pytest.mark.parametrize('lengths', [LENGTHS, torch.tensor(LENGTHS), torch.tensor(LENGTHS, dtype=torch.int32)])
def test_ragged_plans_show_what_their_lengths_say(lengths):
    order = random_order()
    plan = MaskPlan.from_lengths(order, lengths)
    assert plan.ragged and not plan.uniform and plan.num_visible == (4, 6, 2)
    assert plan.lengths.tolist() == LENGTHS and plan.lengths.dtype == torch.long and plan.visible.shape == (3, 3, 6)
    everything = []
    for b in range(3):
        for k in range(3):
            seen = order[b, k, : LENGTHS[b][k]].tolist()
            hidden = order[b, k, LENGTHS[b][k] :].tolist() if LENGTHS[b][k] else []
            assert plan.visible[b, k].tolist() == seen + [-1] * (6 - len(seen))
            assert plan.mask[b, k].nonzero().flatten().tolist() == sorted(hidden)
            everything += [(b * 3 + k) * 6 + n for n in hidden]
    assert plan.hidden_index().tolist() == everything
    assert plan.rows() == ([0, 2, 3, 4, 6, 7, 8], [4, 2, 1, 6, 4, 3, 2])


def test_one_length_an_image_holds_for_all_its_parts():
    plan = MaskPlan.from_lengths(random_order(), torch.tensor([1, 2, 3]))
    assert plan.lengths.tolist() == [[1] * 3, [2] * 3, [3] * 3]


def test_equal_lengths_keep_the_static_shape():
    order = random_order()
    plan = MaskPlan.from_lengths(order, [[4, 1, 2]] * 3, partition=True)
    assert not plan.ragged and plan.per_image is None and plan.num_visible == (4, 1, 2) and plan.partition
    assert MaskPlan.from_lengths(order, [2, 2, 2]).uniform
    # A part that no image has fits no static shape.
    assert MaskPlan.from_lengths(order, [[4, 0, 2]] * 3).ragged


@pytest.mark.parametrize('masker', MASKERS, ids=lambda m: type(m).__name__)
def test_the_hidden_index_lists_the_mask(masker):
    plan = masker(tokens(), generator())
    assert sorted(plan.hidden_index().tolist()) == plan.mask.flatten().nonzero().flatten().tolist()


@pytest.mark.parametrize('seed', range(20))
def test_random_ragged_plans_keep_the_invariants(seed):
    draw = generator(seed)
    batch, parts, patches = (int(torch.randint(1, high, (), generator=draw)) for high in (6, 5, 20))
    lengths = torch.randint(0, patches + 1, (batch, parts), generator=draw)
    lengths[:, 0] = lengths[:, 0].clamp(min=1)
    order = torch.rand(batch, parts, patches, generator=draw).argsort(dim=-1)
    plan = MaskPlan.from_lengths(order, lengths)
    assert torch.equal(plan.lengths, lengths)
    hidden = torch.where(lengths > 0, patches - lengths, 0)
    assert torch.equal(plan.mask.sum(-1), hidden) and len(plan.hidden_index()) == hidden.sum()
    assert torch.equal((plan.visible >= 0).sum(-1), lengths)


@pytest.mark.parametrize(
    'lengths, message',
    [
        ([[1, 2, 7], [1, 1, 1], [1, 1, 1]], 'between 1 and 7.*1 to 6'),
        ([[1, 2, -1], [1, 1, 1], [1, 1, 1]], 'between -1 and 2'),
        ([[1, 2, 3], [0, 0, 0], [1, 1, 1]], r'images \[1\] have no part'),
        ([[1, 2, 3]], r'shape \(1, 3\).*\(3, 3, 6\)'),
        ([[0.5] * 3] * 3, 'float32.*whole numbers'),
    ],
)
def test_lengths_that_make_no_sense_are_refused(lengths, message):
    with pytest.raises(ValueError, match=message):
        MaskPlan.from_lengths(random_order(), lengths)


def test_per_image_lengths_must_agree_with_the_rest_of_the_plan():
    order, lengths = random_order(), torch.tensor(LENGTHS)
    with pytest.raises(ValueError, match='not the largest lengths'):
        MaskPlan(order, (4, 4, 4), per_image=lengths)
    with pytest.raises(ValueError, match='long CPU tensor'):
        MaskPlan(order, (4, 6, 2), per_image=lengths.int())


def test_numbers_for_the_host_are_those_that_a_cpu_generator_draws():
    tokens = torch.zeros(3, 16, 4)
    for seed in range(3):
        drawn = [draw((5, 2), tokens, torch.Generator().manual_seed(seed)) for draw in (draw_on_host, draw_uniform)]
        assert torch.equal(*drawn)
    torch.manual_seed(7)
    alone = draw_on_host((4,), tokens, None)
    torch.manual_seed(7)
    assert torch.equal(draw_uniform((4,), tokens, None), alone)


def test_places_of_what_is_true_need_no_counting():
    for seed in range(5):
        mask = torch.rand(6, 11, generator=torch.Generator().manual_seed(seed)) < 0.4
        assert torch.equal(true_places(mask, int(mask.sum())), mask.flatten().nonzero()[:, 0])
    assert true_places(torch.zeros(4, dtype=torch.bool), 0).tolist() == []
