"""data2vec 2.0's masks against the release's procedure, restated, and against counts of the facts."""

import pytest
import torch

from mim_mm.masking import InverseBlockMasking, MaskPlan


def restated(number, side, squares, block, shown, generator):
    """Masks bool (number, N), True where hidden: squares laid one by one, then single patches hidden or shown."""
    masks = torch.ones(number, side * side, dtype=torch.bool)
    for mask in masks:
        for centre in torch.randint(side * side, (squares,), generator=generator).tolist():
            for i in range(block):
                for j in range(block):
                    row = min(max(centre // side + i - block // 2, 0), side - 1)
                    column = min(max(centre % side + j - block // 2, 0), side - 1)
                    mask[row * side + column] = False
        visible, hidden = (~mask).nonzero()[:, 0], mask.nonzero()[:, 0]
        if len(visible) > shown:
            order = torch.randperm(len(visible), generator=generator)
            mask[visible[order[shown:]]] = True
        else:
            order = torch.randperm(len(hidden), generator=generator)
            mask[hidden[order[: shown - len(visible)]]] = False
    return masks


# ratio, adjust: squares and visible patches of 14 x 14 that the release's arithmetic gives (ViT-B, ViT-L and ViT-H)
RELEASED = {(0.8, 0.07): (5, 39), (0.75, 0.1): (7, 49)}


@pytest.mark.parametrize('settings', RELEASED)
def test_counts_are_those_of_the_release(settings):
    ratio, adjust = settings
    masker = InverseBlockMasking(ratio, adjust=adjust)
    assert masker.num_squares(196) == int(196 * ((1 - ratio) + adjust) / 9) == RELEASED[settings][0]
    plan = masker(torch.zeros(2, 196, 1), torch.Generator().manual_seed(0))
    assert isinstance(plan, MaskPlan) and plan.uniform and plan.order.shape == (2, 16, 196)
    assert plan.num_visible == (RELEASED[settings][1],) * 16
    assert masker.counts(196) == [(RELEASED[settings][1], 196 - RELEASED[settings][1], 0)] * 16
    assert len({tuple(line.tolist()) for line in plan.mask.flatten(0, 1)}) == 32, 'each copy its own'


@pytest.mark.parametrize('side, options', [(14, {}), (8, dict(block=2, adjust=0.3))])
def test_masks_are_drawn_as_the_release_draws_them(side, options):
    """How often each patch is visible, and how many neighbours of visible patches are, over 6,000 masks each."""
    masker, number = InverseBlockMasking(num_parts=20, **options), 6000
    plan = masker(torch.zeros(number // 20, side * side, 1), torch.Generator().manual_seed(1))
    ours = ~plan.mask.flatten(0, 1)
    squares, shown = masker.num_squares(side * side), plan.num_visible[0]
    theirs = ~restated(number, side, squares, masker.block, shown, torch.Generator().manual_seed(2))
    spread = (theirs.double().var(dim=0) * 2 / number).sqrt()
    assert ((ours.double().mean(0) - theirs.double().mean(0)).abs() < 4.5 * spread).all()

    def neighbours(visible):
        maps = visible.view(-1, side, side).double()
        return (maps[:, 1:] * maps[:, :-1]).sum((1, 2)) + (maps[..., 1:] * maps[..., :-1]).sum((1, 2))

    a, b = neighbours(ours), neighbours(theirs)
    assert (a.mean() - b.mean()).abs() < 4.5 * ((a.var() + b.var()) / number).sqrt()
    scattered = neighbours(theirs[:, torch.randperm(side * side)])
    assert b.mean() > 1.5 * scattered.mean(), 'what is compared would see single patches'
    assert float(a.std() / b.std()) == pytest.approx(1, abs=0.05)


def test_grids_need_not_be_square():
    masker = InverseBlockMasking(num_parts=1, ratio=0.65, adjust=0, grid=(2, 16))
    assert masker.num_squares(32) == 1
    pairs = (~masker(torch.zeros(64, 32, 1)).mask[:, 0]).view(64, 2, 16).all(dim=1)
    assert (pairs[:, 1:] & pairs[:, :-1]).any(dim=1).all(), 'a square lies in both rows, whole or cut by the border'


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match='less than one square of block=3: use a smaller block'):
        InverseBlockMasking()(torch.zeros(1, 16, 1))
    for options in (dict(num_parts=0), dict(block=0), dict(adjust=-0.1), dict(adjust=0.9)):
        with pytest.raises(ValueError, match='released are 16, 3 and 0.07'):
            InverseBlockMasking(**options)
