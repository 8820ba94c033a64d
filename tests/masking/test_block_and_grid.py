"""Block masks against BEiT's procedure restated with plain loops, and where they may lie; grid masks by hand."""

import functools
import math

import pytest
import torch

from mim_mm.masking import AttMask, BlockMasking, GridMasking, IndependentMasking, RandomMasking, SalienceMasking


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def masks(masker, batch, grid=(14, 14), seed=0):
    plan = masker(torch.zeros(batch, grid[0] * grid[1], 1), generator(seed))
    return plan, plan.mask[:, 0].view(batch, *grid)


def beit_mask(numbers, rows, columns, wanted, smallest, largest=None, min_aspect=0.3):
    """One mask as a set of (row, column), from an iterator of 4 uniform numbers a proposal."""
    hidden = set()
    while len(hidden) < wanted:
        limit = min(wanted - len(hidden), largest or wanted)
        new = set()
        for _ in range(10):
            u_area, u_aspect, u_top, u_left = next(numbers)
            area = smallest + (limit - smallest) * u_area
            aspect = math.exp(math.log(min_aspect) + (math.log(1 / min_aspect) - math.log(min_aspect)) * u_aspect)
            height, width = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if width < columns and height < rows:
                top, left = int(u_top * (rows - height + 1)), int(u_left * (columns - width + 1))
                block = {(r, c) for r in range(top, top + height) for c in range(left, left + width)}
                if 0 < len(block - hidden) <= limit:
                    new = block - hidden
                    break
        if not new:
            break
        hidden |= new
    return hidden


@pytest.mark.parametrize('grid, ratio, options', [
    ((14, 14), 75 / 196, {}),
    ((14, 14), 120 / 196, dict(max_block=60)),
    ((8, 12), 0.5, dict(min_block=4)),
    ((14, 14), 0.1, dict(min_aspect=0.5)),
])  # fmt: skip
def test_blocks_are_those_of_beit(grid, ratio, options):
    batch, seed = 12, 3
    plan, hidden = masks(BlockMasking(ratio, fill='none', grid=grid, **options), batch, grid, seed)
    source = generator(seed)
    rounds = torch.cat([torch.rand(16, 4, batch, generator=source) for _ in range(20)]).double()
    wanted = math.ceil(grid[0] * grid[1] * ratio - 1e-9)
    smallest = options.get('min_block', 16)
    for b in range(batch):
        numbers = iter(rounds[:, :, b].tolist())
        expected = beit_mask(numbers, *grid, wanted, smallest, options.get('max_block'), options.get('min_aspect', 0.3))
        assert {tuple(place) for place in hidden[b].nonzero().tolist()} == expected
        assert plan.lengths[b, 0] == grid[0] * grid[1] - len(expected)


@pytest.mark.parametrize('fill', ['none', 'random', 'blocks'])
def test_a_range_is_drawn_for_each_image(fill):
    batch, seed = 24, 4
    masker = BlockMasking((0.1, 0.5), fill=fill)
    plan, hidden = masks(masker, batch, seed=seed)
    source = generator(seed)
    drawn = torch.rand(batch, generator=source).double().tolist()
    wanted = [math.ceil(196 * (0.1 + (0.5 - 0.1) * number)) for number in drawn]
    assert len(set(wanted)) > 10 and plan.ragged and not masker.fixed_count
    counts = hidden.flatten(1).sum(dim=1).tolist()
    assert [196 - n for n in plan.lengths[:, 0].tolist()] == counts
    rounds = torch.cat([torch.rand(16, 4, batch, generator=source) for _ in range(40)]).double()
    for b in range(batch):
        assert 20 <= wanted[b] <= 98
        blocks = beit_mask(iter(rounds[:, :, b].tolist()), 14, 14, wanted[b], 16)
        found = {tuple(place) for place in hidden[b].nonzero().tolist()}
        assert found == blocks if fill == 'none' else blocks <= found
        assert counts[b] == (len(blocks) if fill == 'none' else wanted[b])
    assert torch.equal(masks(masker, batch, seed=seed)[0].order, plan.order)


def test_the_middle_of_many_drawn_ratios_is_that_of_the_range():
    counts = masks(BlockMasking((0.1, 0.5)), 2000)[1].flatten(1).sum(dim=1).float() / 196
    assert abs(counts.mean() - 0.3) < 0.01 and counts.min() < 0.11 and counts.max() > 0.49


@pytest.mark.parametrize('ratio', [(0.5, 0.1), (0.0, 0.5), (0.1, 1.0), (0.1,), (0.1, 0.2, 0.3), 'half', (0.1, None)])
def test_a_range_that_is_none_is_refused(ratio):
    with pytest.raises(ValueError, match=r'ratio is .*\(0.1, 0.5\)'):
        BlockMasking(ratio)
    with pytest.raises(ValueError, match=r'ratio is .*\(0.1, 0.5\)'):
        AttMask(ratio=ratio)


def test_a_range_of_one_ratio_is_that_ratio():
    for fill in ('none', 'random'):
        assert torch.equal(masks(BlockMasking((0.4, 0.4), fill=fill), 5)[1], masks(BlockMasking(0.4, fill=fill), 5)[1])


@pytest.mark.parametrize('masker', [RandomMasking, SalienceMasking, functools.partial(IndependentMasking, 3)])
def test_maskers_that_draw_no_ratio_refuse_a_range(masker):
    with pytest.raises(ValueError, match=r'ratio is \(0.1, 0.5\)'):
        masker(ratio=(0.1, 0.5))


def test_published_masks_stay_just_below_their_count_and_filled_ones_reach_it():
    counts = masks(BlockMasking(fill='none'), 300)[1].flatten(1).sum(dim=1)
    assert counts.max() <= 75 and 70 < counts.float().mean() < 75
    for fill in ('random', 'blocks'):
        plan, hidden = masks(BlockMasking(fill=fill), 300)
        assert plan.num_visible == (121,) and (hidden.flatten(1).sum(dim=1) == 75).all()


def test_the_random_fill_only_adds_to_the_blocks():
    bare, filled = masks(BlockMasking(fill='none'), 200)[1], masks(BlockMasking(fill='random'), 200)[1]
    assert (bare <= filled).all() and (bare != filled).any()


def test_blocks_reach_every_border_as_often_as_the_opposite_one():
    # mmpretrain's generator draws corners with an exclusive bound and never reaches the last row and column.
    frequency = masks(BlockMasking(fill='none'), 3000)[1].float().mean(dim=0)
    sides = torch.stack([frequency[0], frequency[-1], frequency[:, 0], frequency[:, -1]])
    assert (sides > 0.02).all()  # corners included
    means = sides.mean(dim=1)
    assert (means - means.mean()).abs().max() < 0.03 and frequency[6:8, 6:8].min() > means.max()


def test_small_areas_cluster():
    # Neighbours agree far more often than in a random mask of the same ratio.
    hidden = masks(BlockMasking(), 200)[1]
    agree = (hidden[:, :, 1:] == hidden[:, :, :-1]).float().mean()
    assert agree > 0.85 > 0.53 > 0.3827**2 + 0.6173**2 - 0.01


def test_min_block_follows_the_grid_and_one_that_cannot_fit_is_refused():
    masks(BlockMasking(0.5), 2, (4, 4))
    with pytest.raises(ValueError, match='min_block is 16.*4 x 4.*min_block=1'):
        masks(BlockMasking(0.5, min_block=16), 2, (4, 4))
    with pytest.raises(ValueError, match=r'15 patches.*grid=\(rows, columns\)'):
        BlockMasking(0.5)(torch.zeros(1, 15, 1))
    for options in (dict(fill='top-up'), dict(ratio=0), dict(min_aspect=2), dict(min_block=9, max_block=4)):
        with pytest.raises(ValueError, match=str(next(iter(options.values())))):
            BlockMasking(**options)


@pytest.mark.parametrize('place', ['image', 'fixed', 'cell'])
@pytest.mark.parametrize('stride, grid', [(2, (4, 4)), (2, (6, 4)), (3, (6, 9))])
def test_every_cell_keeps_one_patch(place, stride, grid):
    plan, hidden = masks(GridMasking(stride, place, grid), 5, grid)
    assert plan.num_visible == (grid[0] * grid[1] // stride**2,)
    for b in range(5):
        places = set()
        for top in range(0, grid[0], stride):
            for left in range(0, grid[1], stride):
                kept = [(r, c) for r in range(stride) for c in range(stride) if not hidden[b, top + r, left + c]]
                assert len(kept) == 1
                places.add(kept[0])
        if place == 'fixed':
            assert places == {(0, 0)}
        if place == 'image':
            assert len(places) == 1


def test_grid_places_are_uniform_over_the_cell():
    hidden = masks(GridMasking(3, 'cell'), 400, (9, 9))[1]
    cells = (~hidden).view(400, 3, 3, 3, 3).float().mean(dim=(0, 1, 3))
    assert (cells - 1 / 9).abs().max() < 5 * math.sqrt(1 / 9 * 8 / 9 / 3600)


def test_grids_that_no_cell_divides_are_refused():
    with pytest.raises(ValueError, match='7 x 7 patches are not a whole number of 2 x 2 cells'):
        GridMasking()(torch.zeros(1, 49, 1))
    with pytest.raises(ValueError, match='stride is 1'):
        GridMasking(1)
    with pytest.raises(ValueError, match="place is 'centre'"):
        GridMasking(place='centre')
