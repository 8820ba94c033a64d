"""Parallel masks guided by salience: how parts share it, that they cover the image, and K that follows the image."""

import pytest
import torch

from mim_mm.clock import Clock
from mim_mm.masking import AdaptiveRatio, SalienceParallelMasking, salience
from mim_mm.masking.salience_parallel import parts_of_ratio


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def tokens_of(batch=4, patches=16, seed=0):
    tokens = torch.randn(batch, patches, 8, generator=generator(seed))
    return tokens * torch.rand(batch, patches, 1, generator=generator(seed + 1)) * 2


def shares(plan, values):
    """Sum of values (B, N) over the visible patches of each part: (B, K)."""
    seen = ~plan.mask & (plan.lengths > 0)[..., None]
    return (seen * values[:, None]).sum(dim=-1)


@pytest.mark.parametrize('parts, patches', [(4, 16), (2, 16), (5, 16), (7, 20), (3, 16)])
@pytest.mark.parametrize('mode', ['balanced', 'graded'])
def test_parts_are_disjoint_cover_the_image_and_differ_by_one_patch(mode, parts, patches):
    plan = SalienceParallelMasking(parts, mode)(tokens_of(4, patches), generator())
    assert plan.partition and not plan.ragged and plan.num_parts == parts
    assert plan.num_visible == tuple(sorted(plan.num_visible, reverse=True))
    assert max(plan.num_visible) - min(plan.num_visible) <= 1 and sum(plan.num_visible) == patches
    assert ((~plan.mask).sum(dim=1) == 1).all()


@pytest.mark.parametrize('parts', [2, 4, 5])
def test_order_is_that_of_a_partition_plan(parts):
    """Own group first, then the other groups in ascending number, each in the order in which its part sees it."""
    plan = SalienceParallelMasking(parts)(tokens_of(), generator())
    for b in range(4):
        groups = [[n for n in plan.visible[b, k].tolist() if n >= 0] for k in range(parts)]
        for k in range(parts):
            others = sum((groups[g] for g in range(parts) if g != k), [])
            assert plan.order[b, k].tolist() == groups[k] + others


@pytest.mark.parametrize('parts', [2, 4, 7])
def test_balanced_parts_get_one_card_of_every_round(parts):
    tokens = tokens_of(5, 21)
    guide = salience(tokens)
    plan = SalienceParallelMasking(parts, noise=0)(tokens, generator())
    for b in range(5):
        ranked = sorted(range(21), key=lambda n: -guide[b, n].item())
        owner = {n: k for k in range(parts) for n in plan.visible[b, k].tolist() if n >= 0}
        for start in range(0, 21 - parts + 1, parts):
            assert sorted(owner[n] for n in ranked[start : start + parts]) == list(range(parts))
    if 21 % parts == 0:
        # Rounds do not overlap, so two parts differ by less than the whole spread.
        total = shares(plan, guide)
        spread = guide.amax(dim=1) - guide.amin(dim=1)
        assert (total.amax(dim=1) - total.amin(dim=1) <= spread + 1e-5).all()


def test_no_part_is_favoured_in_a_round():
    tokens = tokens_of(1).expand(2000, -1, -1)
    plan = SalienceParallelMasking(4, noise=0)(tokens, generator())
    top = salience(tokens[:1]).argmax()
    frequency = (~plan.mask[:, :, top]).float().mean(dim=0)
    assert (frequency - 0.25).abs().max() < 5 * (0.25 * 0.75 / 2000) ** 0.5


@pytest.mark.parametrize('parts', [4, 5])
def test_graded_parts_descend_in_salience(parts):
    tokens = tokens_of()
    guide = salience(tokens)
    plan = SalienceParallelMasking(parts, 'graded', noise=0)(tokens, generator())
    for b in range(4):
        seen = [[guide[b, n].item() for n in plan.visible[b, k].tolist() if n >= 0] for k in range(parts)]
        for k in range(parts - 1):
            assert min(seen[k]) >= max(seen[k + 1])


def test_noise_is_added_to_salience():
    tokens = tokens_of(2)
    noise, _ = torch.rand((2, 2, 16), generator=generator(3))
    plan = SalienceParallelMasking(4, 'graded', noise=0.5)(tokens, generator(3))
    scores = salience(tokens) + 0.5 * noise
    for b in range(2):
        ranked = sorted(range(16), key=lambda n: -scores[b, n].item())
        for k in range(4):
            assert sorted(plan.visible[b, k].tolist()) == sorted(ranked[4 * k : 4 * k + 4])


def test_balanced_shares_are_nearer_to_each_other_than_graded_and_random_ones():
    tokens = tokens_of(64, 16)
    guide = salience(tokens)
    spread = {}
    for mode in ('balanced', 'graded'):
        total = shares(SalienceParallelMasking(4, mode, noise=0)(tokens, generator()), guide)
        spread[mode] = (total.amax(dim=1) - total.amin(dim=1)).mean()
    masker = SalienceParallelMasking(4, random_epochs=1)
    masker.set_clock(Clock.at_epoch(0))
    total = shares(masker(tokens, generator()), guide)
    assert spread['balanced'] < 0.7 * (total.amax(dim=1) - total.amin(dim=1)).mean() < 0.7 * spread['graded']


@pytest.mark.parametrize('ratio, parts', [
    (0.75, 4), (0.5, 2), (0.6, 3), (0.65, 3), (0.8, 5), (0.85, 7), (0.1, 2), (0.9, 10), (0.95, 16), (2 / 3, 3),
])  # fmt: skip
def test_parts_of_a_ratio(ratio, parts):
    assert parts_of_ratio(ratio, 16) == parts


@pytest.mark.parametrize('mode', ['balanced', 'graded'])
def test_the_number_of_parts_follows_the_image(mode):
    tokens = tokens_of(8, 21) * torch.logspace(-1.3, 0.3, 8)[:, None, None]
    rule = AdaptiveRatio(0.65, 0.25, 0.1)
    plan = SalienceParallelMasking(mode=mode, ratio=rule)(tokens, generator())
    expected = [parts_of_ratio(ratio, 21) for ratio in rule(salience(tokens)).tolist()]
    assert len(set(expected)) > 2 and plan.ragged and plan.num_parts == 10
    for b, parts in enumerate(expected):
        lengths = plan.lengths[b].tolist()
        assert lengths == [21 // parts + (k < 21 % parts) for k in range(parts)] + [0] * (10 - parts)
        assert sorted(n for n in plan.visible[b].flatten().tolist() if n >= 0) == list(range(21))
        assert not plan.mask[b, parts:].any()
        assert plan.mask[b, :parts].sum().item() == 21 * (parts - 1)


def test_per_batch_gives_one_number_of_parts_without_absent_ones():
    tokens = tokens_of(8, 21) * torch.logspace(-1.3, 0.3, 8)[:, None, None]
    rule = AdaptiveRatio(0.7, 0.2, 0.3, scope='per_batch')
    plan = SalienceParallelMasking(ratio=rule)(tokens, generator())
    parts = parts_of_ratio(rule(salience(tokens))[0].item(), 21)
    assert plan.num_parts == parts and not plan.ragged and min(plan.num_visible) > 0


@pytest.mark.parametrize('options, words', [
    (dict(num_parts=1), 'num_parts is 1'), (dict(mode='even'), "mode is 'even'"), (dict(noise=-1), 'noise is -1'),
    (dict(ratio=0.75), 'num_parts for a fixed K'),
])  # fmt: skip
def test_nonsense_is_refused(options, words):
    with pytest.raises(ValueError, match=words):
        SalienceParallelMasking(**options)
    with pytest.raises(ValueError, match='num_parts is 17 for 16 patches'):
        SalienceParallelMasking(17)(tokens_of())
