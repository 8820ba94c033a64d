"""I-JEPA's blocks against the formulas of its release, restated, and against counts of the facts."""

import math

import pytest
import torch

from mim_mm.clock import Clock
from mim_mm.masking import MaskPlan, MultiBlockMasking
from mim_mm.masking.multi_block import block_size


def restated_size(side, number, scale, aspect):
    """One uniform number for scale and aspect; sides shrink until they are smaller than the grid."""
    keep = int(side * side * (scale[0] + number * (scale[1] - scale[0])))
    ratio = aspect[0] + number * (aspect[1] - aspect[0])
    height, width = int(round(math.sqrt(keep * ratio))), int(round(math.sqrt(keep / ratio)))
    while height >= side:
        height -= 1
    while width >= side:
        width -= 1
    return height, width


@pytest.mark.parametrize('side', [8, 14, 16, 28])
def test_sizes_are_those_of_the_release(side):
    for number in torch.rand(200, generator=torch.Generator().manual_seed(side)).tolist() + [0.0]:
        for scale, aspect in (((0.15, 0.2), (0.75, 1.5)), ((0.85, 1.0), (1.0, 1.0))):
            wanted = restated_size(side, number, scale, aspect)
            assert block_size((side, side), number, scale, aspect) == wanted
    assert block_size((14, 14), 0.999, (0.85, 1.0), (1.0, 1.0)) == (13, 13)


def rectangle(mask, side):
    """(top, left, height, width) of a mask (N,) that is one."""
    rows, columns = mask.view(side, side).any(dim=1).nonzero().flatten(), mask.view(side, side).any(dim=0).nonzero()
    columns = columns.flatten()
    assert mask.sum() == len(rows) * len(columns)
    return int(rows[0]), int(columns[0]), len(rows), len(columns)


def test_targets_are_blocks_of_one_size_and_contexts_hold_none_of_them():
    side, draw, corners = 14, torch.Generator().manual_seed(0), set()
    sizes = []
    for _ in range(30):
        plan = MultiBlockMasking()(torch.zeros(8, side * side, 2), draw)
        assert plan.num_parts == 4 and plan.same_visible and plan.uniform and not plan.ragged
        assert torch.equal(plan.order.sort(-1).values, torch.arange(196).expand_as(plan.order))
        blocks = [rectangle(mask, side) for mask in plan.mask.flatten(0, 1)]
        assert len({block[2:] for block in blocks}) == 1, 'one size a batch'
        sizes.append(blocks[0][2:])
        corners |= {block[:2] for block in blocks}
        last = plan.mask.view(8, 4, side, side)
        assert not last[..., -1, :].any() and not last[..., :, -1].any(), 'never the last row and column'
        seen = plan.visible
        assert (seen == seen[:, :1]).all() and (seen.diff(dim=-1) > 0).all(), 'in the order of the image'
        context = torch.zeros(8, 196, dtype=torch.bool).scatter_(1, seen[:, 0], True)
        assert not (context[:, None] & plan.mask).any()
        assert not context.view(8, side, side)[:, -1].any()
        assert plan.num_visible[0] > 10 and plan.mask[0, 0].sum() > 10
    assert len(set(sizes)) > 3 and len(corners) > 50
    assert all(29 <= height * width <= 42 for height, width in sizes)


def test_a_batch_is_cut_to_its_shortest_context_from_the_end():
    """The averages that the release shows on 16 x 16 patches: 111, 82 and 74 in batches of 1, 16 and 64."""
    for batch, wanted, steps in ((1, 111, 300), (16, 82, 60), (64, 74, 30)):
        draw = torch.Generator().manual_seed(batch)
        plans = [MultiBlockMasking()(torch.zeros(batch, 256, 1), draw) for _ in range(steps)]
        found = sum(plan.num_visible[0] for plan in plans) / steps
        assert found == pytest.approx(wanted, abs=5)
        hidden = sum(plan.hidden.shape[-1] for plan in plans) / steps
        assert hidden == pytest.approx(44, abs=2)
    masker = MultiBlockMasking(num_targets=1, target_scale=(0.25, 0.25), target_aspect=(1, 1), min_keep=0)
    seen = torch.tensor([[1, 1, 1, 0], [0, 1, 0, 1]], dtype=torch.bool)
    targets = torch.tensor([[[0, 0, 0, 1]], [[1, 0, 0, 0]]], dtype=torch.bool)
    plan = masker._order(seen, targets, torch.device('cpu'))
    assert plan.order.tolist() == [[[0, 1, 3, 2]], [[1, 3, 0, 2]]]
    assert plan.num_visible == (2,) and plan.num_thrown == 1


def test_contexts_keep_more_than_the_least():
    """Strictly more, and where none is left the targets are drawn anew."""
    for least in (10, 40, 60):
        draw, masker = torch.Generator().manual_seed(1), MultiBlockMasking(min_keep=least, target_scale=(0.4, 0.4))
        for _ in range(10):
            assert masker(torch.zeros(4, 196, 1), draw).num_visible[0] > least
    with pytest.raises(ValueError, match='more than min_keep=10 patches; lower min_keep'):
        MultiBlockMasking()(torch.zeros(2, 16, 1))
    with pytest.raises(ValueError, match='leave no context'):
        MultiBlockMasking(num_targets=1, target_scale=(1, 1), target_aspect=(1, 1), min_keep=0)(torch.zeros(1, 16, 1))


def test_all_ranks_draw_the_same_sizes_and_their_own_places():
    masker = MultiBlockMasking()
    plans = {}
    for step in range(6):
        masker.set_clock(Clock(3, step, 0, 0.0))
        for rank in range(2):
            plans[step, rank] = masker(torch.zeros(4, 196, 1), torch.Generator().manual_seed(100 * step + rank))
    shapes = {key: rectangle(plan.mask[0, 0], 14)[2:] for key, plan in plans.items()}
    assert all(shapes[step, 0] == shapes[step, 1] for step in range(6)) and len(set(shapes.values())) > 2
    assert not any(torch.equal(plans[step, 0].mask, plans[step, 1].mask) for step in range(6))
    assert isinstance(plans[0, 0], MaskPlan)


def test_counts_are_those_of_a_usual_batch():
    visible, hidden, thrown = MultiBlockMasking().counts(256)[3]
    assert visible + hidden + thrown == 256 and abs(visible - 74) < 8 and abs(hidden - 44) < 3
    assert len(MultiBlockMasking(num_targets=2).counts(196)) == 2


@pytest.mark.parametrize('options, text', [
    (dict(num_targets=0), 'num_targets=0'),
    (dict(target_scale=(0.3, 0.2)), 'target_scale is'),
    (dict(context_scale=(0.5, 1.2)), 'context_scale is'),
    (dict(target_aspect=(0, 1)), 'target_aspect is'),
])  # fmt: skip
def test_what_makes_no_sense_is_refused(options, text):
    with pytest.raises(ValueError, match=text):
        MultiBlockMasking(**options)
