"""Losses against their definitions as plain loops, values and gradients in float64-like precision."""

import itertools

import pytest
import torch
from losses_restated import naive_consistency

from mim_mm.losses import (
    agreement_loss,
    hidden_errors,
    mean_over_hidden,
    packed_errors,
    reconstruction_loss,
    self_consistency_loss,
)
from mim_mm.masking import ParallelMasking


def mean_over_pairs(pred, mask):
    """What 'overlap' is for parts of equal length: the mean over the pairs of the mean over the batch."""
    pairs = []
    for i, j in itertools.combinations(range(pred.shape[1]), 2):
        x, y = (pred[:, k][mask[:, i] & mask[:, j]] for k in (i, j))
        pairs.append(((x.detach() - y).abs() + (x - y.detach()).abs()).mean())
    return sum(pairs) / len(pairs)


def value_and_grad(function, pred, *args):
    leaf = pred.clone().requires_grad_()
    value = function(leaf, *args)
    (value * 1.7).backward()
    return value.detach(), leaf.grad


def check_against_the_loop(pred, mask, normalizer='overlap'):
    value, grad = value_and_grad(self_consistency_loss, pred, mask, normalizer)
    wanted, wanted_grad = value_and_grad(naive_consistency, pred.double(), mask, normalizer)
    torch.testing.assert_close(value.double(), wanted, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(grad.double(), wanted_grad, rtol=1e-6, atol=1e-9)
    return value, grad


def parallel_mask(batch, parts, patches, seed=0):
    return ParallelMasking(parts)(torch.zeros(batch, patches, 1), torch.Generator().manual_seed(seed)).mask


@pytest.mark.parametrize('normalizer', ['overlap', 'all'])
@pytest.mark.parametrize('parts', [2, 3, 4, 7, 14])
def test_consistency_equals_the_triple_loop_under_parallel_masks(parts, normalizer):
    torch.manual_seed(parts)
    patches = 2 * parts
    pred, mask = torch.randn(2, parts, patches, 5), parallel_mask(2, parts, patches)
    value, grad = check_against_the_loop(pred, mask, normalizer)
    if parts > 2:
        pairs, pairs_grad = value_and_grad(mean_over_pairs, pred.double(), mask)
        share = 1 if normalizer == 'overlap' else (parts - 2) / parts
        torch.testing.assert_close(value.double(), pairs * share, rtol=1e-6, atol=1e-8)
        torch.testing.assert_close(grad.double(), pairs_grad * share, rtol=1e-6, atol=1e-9)
        assert value > 0 and grad.abs().sum() > 0
    else:
        assert value == 0 and grad.abs().sum() == 0


@pytest.mark.parametrize('normalizer', ['overlap', 'all'])
@pytest.mark.parametrize('seed', range(5))
def test_consistency_takes_any_masks(seed, normalizer):
    torch.manual_seed(seed)
    pred, mask = torch.randn(2, 4, 9, 3), torch.rand(2, 4, 9) < 0.4
    mask[:, 3] = mask[:, 3] & ~mask[:, 2]  # parts 2 and 3 never overlap
    mask[1, 0] = False  # an image without part 0
    check_against_the_loop(pred, mask, normalizer)


def amr_masks(counts, patches, parts):
    """Parallel masks of images with so many parts each; the parts that an image lacks hide nothing."""
    mask = torch.zeros(len(counts), parts, patches, dtype=torch.bool)
    for b, count in enumerate(counts):
        for part, own in enumerate(torch.randperm(patches).tensor_split(count)):
            mask[b, part] = True
            mask[b, part, own] = False
    return mask


@pytest.mark.parametrize('normalizer', ['overlap', 'all'])
@pytest.mark.parametrize('counts', [[4, 3, 5], [2, 2, 5], [5, 5, 5], [2, 2]])
def test_images_of_different_numbers_of_parts_weigh_by_their_terms(counts, normalizer):
    torch.manual_seed(0)
    mask = amr_masks(counts, 10, 5)
    pred = torch.randn(len(counts), 5, 10, 3)
    value, _ = check_against_the_loop(pred, mask, normalizer)
    if counts == [2, 2]:
        assert value == 0


def test_one_image_of_many_parts_does_not_own_the_gradient():
    # 31 images of 4 parts and one of 7: that one has 21 * 20 of 31 * 6 * 14 + 21 * 20 terms, 14 %.
    torch.manual_seed(0)
    mask = amr_masks([4] * 31 + [7], 28, 7)
    pred = torch.randn(32, 7, 28, 4)
    for normalizer in ('overlap', 'all'):
        _, grad = value_and_grad(self_consistency_loss, pred, mask, normalizer)
        share = grad[-1].abs().sum() / grad.abs().sum()
        assert 0.10 < share < 0.15


@pytest.mark.parametrize('parts', [3, 4, 7, 14])
def test_the_dense_form_equals_the_masked_one(parts):
    torch.manual_seed(parts)
    plan = ParallelMasking(parts)(torch.zeros(2, 2 * parts, 1), torch.Generator().manual_seed(1))
    hidden = plan.order[..., 2:]
    dense = torch.randn(2, parts, hidden.shape[-1], 5, requires_grad=True)
    scattered = torch.zeros(2, parts, 2 * parts, 5).scatter(2, hidden[..., None].expand(-1, -1, -1, 5), dense)
    wanted = self_consistency_loss(scattered, plan.mask)
    (wanted_grad,) = torch.autograd.grad(wanted, dense)
    value = agreement_loss(dense)
    (grad,) = torch.autograd.grad(value, dense)
    torch.testing.assert_close(value, wanted, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(grad, wanted_grad, rtol=1e-5, atol=1e-9)


def test_value_is_twice_what_the_gradient_belongs_to():
    # Two parts, one patch hidden in both, one value each: 2 and 5.
    pred = torch.tensor([2.0, 5.0]).view(1, 2, 1, 1).requires_grad_()
    loss = self_consistency_loss(pred, torch.ones(1, 2, 1, dtype=torch.bool))
    loss.backward()
    assert loss.item() == 6.0
    assert pred.grad.flatten().tolist() == [-1.0, 1.0]


def test_equal_predictions_have_no_gradient():
    pred = torch.ones(1, 4, 4, 3, requires_grad=True)
    self_consistency_loss(pred, parallel_mask(1, 4, 4)).backward()
    assert pred.grad.abs().sum() == 0


def test_visible_places_do_not_enter():
    torch.manual_seed(0)
    mask = parallel_mask(2, 4, 8)
    pred, target = torch.randn(2, 4, 8, 3), torch.randn(2, 8, 3)
    spoilt = pred.masked_fill(~mask[..., None], float('nan'))
    for function, extra in ((self_consistency_loss, (mask,)), (reconstruction_loss, (target, mask))):
        value, grad = value_and_grad(function, pred, *extra)
        spoilt_value, spoilt_grad = value_and_grad(function, spoilt, *extra)
        assert torch.equal(value, spoilt_value)
        assert torch.equal(grad, spoilt_grad) and (grad[~mask] == 0).all()


def test_reconstruction_is_the_mean_over_hidden_triples():
    torch.manual_seed(0)
    pred, target, mask = torch.randn(2, 3, 4, 5), torch.randn(2, 4, 5), torch.rand(2, 3, 4) < 0.6
    errors = [
        ((pred[b, k, n] - target[b, n]) ** 2).mean().item()
        for b in range(2) for k in range(3) for n in range(4) if mask[b, k, n]
    ]  # fmt: skip
    assert reconstruction_loss(pred, target, mask).item() == pytest.approx(sum(errors) / len(errors), rel=1e-6)


def test_hidden_errors_average_to_the_reconstruction_loss():
    torch.manual_seed(0)
    plan = ParallelMasking(4)(torch.zeros(2, 8, 1))
    pred, target = torch.randn(2, 4, 8, 3), torch.randn(2, 8, 3)
    hidden = plan.order[..., 2:]
    pred.requires_grad_()
    dense = pred.gather(2, hidden[..., None].expand(-1, -1, -1, 3))
    mean, wanted = hidden_errors(dense, target, hidden).mean(), reconstruction_loss(pred, target, plan.mask)
    torch.testing.assert_close(mean, wanted)
    gradients = (torch.autograd.grad(loss, pred)[0] for loss in (mean, wanted))
    torch.testing.assert_close(*gradients)


def test_the_two_ways_to_average_over_images_of_unequal_length():
    torch.manual_seed(0)
    pred, target, mask = torch.randn(3, 2, 4, 5), torch.randn(3, 4, 5), torch.rand(3, 2, 4) < 0.5
    mask[1] = False  # an image that hides nothing is no image of the mean
    assert mask[0].sum() != mask[2].sum()
    errors, images, places = [], [], []
    for b in range(3):
        for k in range(2):
            for n in range(4):
                if mask[b, k, n]:
                    errors.append(((pred[b, k, n] - target[b, n]) ** 2).mean().item())
                    images.append(b)
                    places.append(b * 4 + n)
    of_image = [[e for e, i in zip(errors, images) if i == b] for b in (0, 2)]
    per_image = sum(sum(e) / len(e) for e in of_image) / 2
    over_all = sum(errors) / len(errors)
    assert abs(per_image - over_all) > 1e-4
    found = packed_errors(pred[mask], target, torch.tensor(places))
    assert found.tolist() == pytest.approx(errors, rel=1e-5)
    for option, wanted in ((False, over_all), (True, per_image)):
        assert reconstruction_loss(pred, target, mask, option).item() == pytest.approx(wanted, rel=1e-5)
        assert mean_over_hidden(found, torch.tensor(images), 3, option).item() == pytest.approx(wanted, rel=1e-5)


def test_a_perfect_prediction_costs_nothing():
    target = torch.randn(2, 8, 3)
    pred = target[:, None].expand(-1, 4, -1, -1).contiguous()
    mask = parallel_mask(2, 4, 8)
    assert reconstruction_loss(pred, target, mask) == 0 and self_consistency_loss(pred, mask) == 0


def test_losses_are_fp32_under_autocast():
    mask = parallel_mask(2, 4, 8)
    pred = torch.randn(2, 4, 8, 3).bfloat16()
    with torch.autocast('cpu', torch.bfloat16):
        values = [self_consistency_loss(pred, mask), reconstruction_loss(pred, torch.randn(2, 8, 3), mask)]
    assert all(value.dtype == torch.float32 for value in values)
    torch.testing.assert_close(values[0], self_consistency_loss(pred.float(), mask))


def test_bad_arguments_say_what_is_wrong():
    pred, mask = torch.zeros(1, 2, 3, 4), torch.ones(1, 2, 3, dtype=torch.bool)
    with pytest.raises(ValueError, match="normalizer is 'sum'"):
        self_consistency_loss(pred, mask, 'sum')
    with pytest.raises(ValueError, match='must be bool'):
        self_consistency_loss(pred, mask.float())
    with pytest.raises(ValueError, match=r'\(B, K, N, P\)'):
        reconstruction_loss(pred[0], pred[0], mask)
