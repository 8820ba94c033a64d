"""Salience and SBAM against plain loops; AMR on salience made by hand."""

import math
import sys
from fractions import Fraction

import pytest
import torch

from mim_mm.clock import Clock
from mim_mm.masking import AdaptiveRatio, SalienceMasking, salience
from mim_mm.masking.adaptive import hidden_counts
from mim_mm.masking.salience_parallel import parts_of_ratio


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def tokens_of(batch=2, patches=16, dims=6, scale=1.0, seed=0):
    return scale * torch.randn(batch, patches, dims, generator=generator(seed))


def looped_salience(tokens, logit_scale=1.0):
    """S of one image (N, D) in Python floats: affinities, row softmax, column sums, min-max."""
    rows = tokens.double().tolist()
    received = [0.0] * len(rows)
    for query in rows:
        logits = [logit_scale * sum(q * k for q, k in zip(query, key)) for key in rows]
        highest = max(logits)
        powers = [math.exp(value - highest) for value in logits]
        for j, power in enumerate(powers):
            received[j] += power / sum(powers)
    low, high = min(received), max(received)
    return [(value - low) / (high - low) for value in received]


@pytest.mark.parametrize('scale', [0.3, 1.0, 3.0])
@pytest.mark.parametrize('logit_scale', [None, 0.2])
def test_salience_is_the_triple_loop(scale, logit_scale):
    tokens = tokens_of(scale=scale)
    got = salience(tokens, logit_scale)
    assert got.shape == (2, 16) and got.dtype == torch.float32
    for b in range(2):
        assert got[b].tolist() == pytest.approx(looped_salience(tokens[b], logit_scale or 1.0), abs=1e-5)


def test_a_common_offset_of_all_tokens_matters_as_in_the_formula():
    # The rows' constant drops out of the softmax, the columns' does not: a shortcut that centres both would be wrong.
    tokens = tokens_of() + 3.0
    assert salience(tokens)[0].tolist() == pytest.approx(looped_salience(tokens[0]), abs=1e-5)
    assert not torch.allclose(salience(tokens), salience(tokens - 3.0), atol=0.05)


def test_images_in_slices_give_the_same(monkeypatch):
    tokens = tokens_of(5)
    whole = salience(tokens)
    monkeypatch.setattr(sys.modules['mim_mm.masking.salience'], 'AFFINITIES_AT_ONCE', 2 * 16**2)
    torch.testing.assert_close(salience(tokens), whole)


def test_salience_is_fp32_without_gradient_under_autocast():
    tokens = tokens_of(scale=2.0).requires_grad_()
    with torch.autocast('cpu', dtype=torch.bfloat16):
        inside = salience(tokens)
        low = salience(tokens.bfloat16())
    assert torch.equal(inside, salience(tokens)) and not inside.requires_grad
    assert torch.equal(low, salience(tokens.detach().bfloat16().float()))


@pytest.mark.parametrize('scale', [1e-6, 1.0, 300.0])
def test_salience_stays_in_the_unit_interval_whatever_the_norm(scale):
    # 300: logits of half a million, beyond fp16, and a softmax of ones and zeros.
    got = salience(tokens_of(scale=scale))
    assert torch.isfinite(got).all() and got.min() >= 0 and got.max() <= 1


@pytest.mark.parametrize('value', [0.0, 1.0, 50.0, 0.3])
def test_equal_tokens_are_equally_salient_and_masked_at_random(value):
    tokens = torch.full((600, 49, 24), value)
    assert salience(tokens).max() < 0.05
    frequency = SalienceMasking(0.75)(tokens, generator()).mask[:, 0].float().mean(dim=0)
    share, sigma = 37 / 49, math.sqrt(0.75 * 0.25 / 600)
    assert (frequency - share).abs().max() < 5 * sigma


@pytest.mark.parametrize('patches, ratio', [(16, 0.75), (16, 0.6), (20, 0.65), (9, 0.5)])
@pytest.mark.parametrize('noise', [0.5, 2.0, 0.0])
def test_the_plan_hides_the_largest_noisy_salience(patches, ratio, noise):
    tokens = tokens_of(3, patches)
    drawn = torch.rand(3, patches, generator=generator(4)).tolist()
    plan = SalienceMasking(ratio, noise=noise)(tokens, generator(4))
    hidden = math.ceil(Fraction(str(ratio)) * patches)
    for b in range(3):
        scores = [s + noise * u for s, u in zip(looped_salience(tokens[b]), drawn[b])]
        descending = sorted(range(patches), key=lambda n: -scores[n])
        assert plan.mask[b, 0].nonzero().flatten().tolist() == sorted(descending[:hidden])
        assert plan.visible[b, 0].tolist() == descending[hidden:][::-1]


# --- the ratio ---


def by_hand(shares, patches=8):
    """S (B, N) of which the given share exceeds 0.5."""
    return torch.stack([(torch.arange(patches) < share * patches).float() * 0.7 + 0.1 for share in shares])


def test_the_ratio_spans_its_range_from_no_patch_to_all_patches():
    rule = AdaptiveRatio(0.75, 0.1, 0.5)
    assert rule(by_hand([0, 0.5, 1, 0.25])).tolist() == pytest.approx([0.65, 0.75, 0.85, 0.70])
    assert rule(torch.full((1, 8), 0.5)).tolist() == pytest.approx([0.65])  # S > delta is strict
    assert rule(by_hand([1])).dtype == torch.float32


def test_per_batch_is_the_mean_over_the_batch_for_all():
    rule = AdaptiveRatio(0.75, 0.1, 0.5, scope='per_batch')
    assert rule(by_hand([0, 0.5, 1, 0.25])).tolist() == pytest.approx([0.7375] * 4)


def test_the_ratio_is_clamped():
    rule = AdaptiveRatio(0.8, 0.5, 0.5, min_ratio=0.4, max_ratio=0.9)
    assert rule(by_hand([0, 0.5, 1])).tolist() == pytest.approx([0.4, 0.8, 0.9])
    assert rule.bounds() == (0.4, 0.9)


def test_counts_follow_the_rounding_rule_and_leave_something_to_see_and_to_predict():
    assert hidden_counts(torch.tensor([0.65, 0.6, 0.75, 0.751]), 20) == [13, 12, 15, 16]
    assert hidden_counts(torch.tensor([0.05, 0.95]), 4) == [1, 3]


EXACT = [  # N, base, delta_r as written
    (196, '0.75', '0.1'), (196, '0.6', '0.1'), (256, '0.75', '0.1'), (49, '0.6', '0.3'), (64, '0.75', '0.15'),
    (144, '0.7', '0.05'), (36, '0.65', '0.123'), (100, '0.55', '0.45'), (196, '0.75', '0.123456789'),
]  # fmt: skip


def exact_counts(patches, base, delta_r, salient, of):
    base, delta_r = Fraction(base), Fraction(delta_r)
    ratio = base - delta_r + 2 * delta_r * Fraction(salient, of)
    ratio = min(max(ratio, Fraction('0.05')), Fraction('0.95'))
    return min(max(math.ceil(patches * ratio), 1), patches - 1)


def salient_images(counts, patches):
    return torch.where(torch.arange(patches) < torch.tensor(counts)[:, None], 0.8, 0.1)


@pytest.mark.parametrize('patches, base, delta_r', EXACT)
def test_every_salience_count_hides_the_exact_number(patches, base, delta_r, monkeypatch):
    counts = list(range(patches + 1))
    guide = salient_images(counts, patches)
    wanted = [exact_counts(patches, base, delta_r, count, patches) for count in counts]
    rule = AdaptiveRatio(float(base), float(delta_r), 0.5)
    assert hidden_counts(rule.exact(guide), patches) == wanted
    if len(delta_r) < 6:  # fp32 cannot tell finer decimals apart
        assert hidden_counts(rule(guide), patches) == wanted
    # What the masker makes of it, with that salience.
    monkeypatch.setattr(sys.modules['mim_mm.masking.salience'], 'salience', lambda *_: guide)
    plan = SalienceMasking(rule)(torch.zeros(len(counts), patches, 1), generator())
    assert plan.mask[:, 0].sum(dim=1).tolist() == wanted


@pytest.mark.parametrize('patches, base, delta_r', EXACT)
def test_the_mean_of_a_batch_hides_the_exact_number(patches, base, delta_r):
    for images in (3, 7):
        for count in range(images * patches + 1):
            whole, rest = divmod(count, images)
            guide = salient_images([whole + (b < rest) for b in range(images)], patches)
            rule = AdaptiveRatio(float(base), float(delta_r), 0.5, scope='per_batch')
            wanted = exact_counts(patches, base, delta_r, count, images * patches)
            assert hidden_counts(rule.exact(guide), patches) == [wanted] * images


def test_parts_of_an_adaptive_ratio_are_those_of_the_exact_ratio():
    # 1 / (1 - R) is 3.5 where R = 5/7: base 4/7, delta_r 1/7 and all 28 patches salient; one patch less gives less.
    rule = AdaptiveRatio(4 / 7, 1 / 7, 0.5)
    ratios = rule.exact(salient_images([28, 27, 0], 28))
    assert ratios == [Fraction(5, 7), Fraction(5, 7) - Fraction(1, 98), Fraction(3, 7)]
    assert [parts_of_ratio(ratio, 28) for ratio in ratios] == [4, 3, 2]


def test_sbam_with_amr_hides_what_each_image_asks_for():
    tokens = tokens_of(6, 20, 8)
    tokens = tokens * torch.tensor([0.1, 0.5, 1.0, 1.5, 2.0, 3.0])[:, None, None]
    rule = AdaptiveRatio(0.6, 0.3, 0.3)
    plan = SalienceMasking(dict(type='AdaptiveRatio', base=0.6, delta_r=0.3, threshold=0.3))(tokens, generator())
    drawn = torch.rand(6, 20, generator=generator()).tolist()
    counts = []
    for b in range(6):
        looped = looped_salience(tokens[b])
        ratio = 0.3 + 0.6 * Fraction(sum(s > 0.3 for s in looped), 20)
        counts.append(math.ceil(20 * ratio - 1e-6))
        scores = [s + 0.5 * u for s, u in zip(looped, drawn[b])]
        descending = sorted(range(20), key=lambda n: -scores[n])
        assert plan.mask[b, 0].nonzero().flatten().tolist() == sorted(descending[: counts[b]])
    assert len(set(counts)) > 2 and plan.ragged
    batched = SalienceMasking(AdaptiveRatio(0.6, 0.3, 0.3, scope='per_batch'))(tokens, generator())
    hidden = math.ceil(20 * rule(salience(tokens)).mean().item() - 1e-4)
    assert batched.uniform and batched.num_visible == (20 - hidden,)


# --- warm-up ---


def test_masks_are_random_until_the_warm_up_is_over():
    masker = SalienceMasking(0.75, random_epochs=2)
    tokens = tokens_of(3)
    with pytest.raises(RuntimeError, match='ClockHook.*set_clock'):
        masker(tokens)
    random_plan = torch.rand(3, 16, generator=generator(1)).argsort(dim=1)[:, None]
    guided = SalienceMasking(0.75)(tokens, generator(1)).order
    for epoch, expected in [(0, random_plan), (1, random_plan), (2, guided), (7, guided), (1, random_plan)]:
        masker.set_clock(Clock.at_epoch(epoch))
        assert torch.equal(masker(tokens, generator(1)).order, expected)
    adaptive = SalienceMasking(AdaptiveRatio(0.75, 0.1, 0.5), random_epochs=1)
    adaptive.set_clock(Clock.at_epoch(0))
    assert adaptive(tokens, generator(1)).num_visible == (4,)


def test_a_warm_up_of_one_and_a_half_epochs_ends_inside_the_second():
    masker = SalienceMasking(0.75, random_epochs=1.5)
    for step, expected in [(0, True), (9, True), (10, True), (14, True), (15, False), (19, False), (20, False)]:
        masker.set_clock(Clock(seed=0, step=step, epoch=step // 10, share=step / 40, epoch_length=10))
        assert masker.warming_up is expected, step
    for epoch, expected in [(0, True), (1, True), (2, False)]:  # outside training only the epoch is known
        masker.set_clock(Clock.at_epoch(epoch))
        assert masker.warming_up is expected, epoch


@pytest.mark.parametrize('options, words', [
    (dict(ratio=1.2), '1.2'), (dict(noise=-1), 'noise is -1'), (dict(random_epochs=-1), 'random_epochs is -1'),
])  # fmt: skip
def test_nonsense_is_refused(options, words):
    with pytest.raises(ValueError, match=words):
        SalienceMasking(**options)


@pytest.mark.parametrize('options, words', [
    (dict(scope='image'), "'per_image'"), (dict(base=0.97), 'max_ratio'), (dict(threshold=1.0), 'threshold'),
    (dict(all_reduce=True), 'per_batch'), (dict(min_ratio=0.9, max_ratio=0.5), 'min_ratio=0.9'),
])  # fmt: skip
def test_nonsense_ratios_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        AdaptiveRatio(**{**dict(base=0.75, delta_r=0.1, threshold=0.5), **options})


def _rank(rank, store, results):
    torch.distributed.init_process_group('gloo', init_method=f'file://{store}', rank=rank, world_size=2)
    own = by_hand([0.0, 0.0, 0.0]) if rank == 0 else by_hand([1.0])
    for reduce in (False, True):
        rule = AdaptiveRatio(0.75, 0.1, 0.5, scope='per_batch', all_reduce=reduce)
        results[rank, reduce] = rule(own)[0].item()
    torch.distributed.destroy_process_group()


def test_per_batch_means_per_rank_unless_reduced(tmp_path):
    context = torch.multiprocessing.get_context('spawn')
    with context.Manager() as manager:
        results = manager.dict()
        workers = [context.Process(target=_rank, args=(r, tmp_path / 'store', results)) for r in range(2)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(120)
        assert [worker.exitcode for worker in workers] == [0, 0]
        assert results[0, False] == pytest.approx(0.65) and results[1, False] == pytest.approx(0.85)
        # 1 of 4 images: sums and counts are reduced, not the means of the ranks.
        assert results[0, True] == results[1, True] == pytest.approx(0.65 + 0.2 * 0.25)
