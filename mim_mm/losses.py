"""Losses, each with its denominator written down. All are computed in fp32, also under autocast.

B images, K parts, N patches, V visible, M hidden, P values a patch. True in a mask means hidden.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

import torch
from torch import Tensor
from torch.nn import functional as F


def reconstruction_loss(pred: Tensor, target: Tensor, mask: Tensor, per_image_mean: bool = False) -> Tensor:
    """Mean squared error of hidden patches: ``sum m * mean_P (pred - target)^2 / sum m``.

    The denominator is the number of hidden (image, part, patch) triples of the batch, so every hidden patch counts the
    same. With K = 1 this is MAE's loss (He et al. 2022); with K parts it is ``L_whole`` of EMAE (Li et al. 2024).

    Where the images of a batch hide different numbers of patches the two ways to average differ. Over all patches, the
    default, is what the fixed-length loss does: a prediction has the same weight in whichever image it stands, and an
    image weighs as much as it has to predict. Averaging within each image first would give a patch of an image that
    hides 50 % 1.8 times the weight of one in an image that hides 90 %, and so pull against the masker that chose to
    hide more there.

    Args:
        pred: (B, K, N, P); values at visible patches are ignored.
        target: (B, N, P).
        mask: bool (B, K, N).
        per_image_mean: average within each image first, then over the images that hide anything.

    Returns:
        A scalar.
    """
    _check(pred, mask)
    with torch.autocast(pred.device.type, enabled=False):
        # Masked before squaring, so that not even a NaN at a visible place reaches value or gradient.
        error = (pred.float() - target.float()[:, None]).masked_fill(~mask[..., None], 0).square().mean(dim=-1)
        if not per_image_mean:
            return error.sum() / mask.sum().clamp(min=1)
        count = mask.sum(dim=(1, 2))
        return (error.sum(dim=(1, 2)) / count.clamp(min=1)).sum() / (count > 0).sum().clamp(min=1)


def mean_over_hidden(errors: Tensor, image: Tensor, batch: int, per_image_mean: bool = False) -> Tensor:
    """The mean that :func:`reconstruction_loss` takes, of errors packed one after the other.

    Args:
        errors: (H,), one for each hidden (image, part, patch).
        image: long (H,), the image of each.
        batch: B.
        per_image_mean: as there.
    """
    if not per_image_mean:
        return errors.sum() / max(len(errors), 1)
    count = torch.zeros(batch, device=errors.device).index_add_(0, image, torch.ones_like(errors, dtype=torch.float32))
    return (errors / count[image]).sum() / (count > 0).sum().clamp(min=1)


def hidden_errors(pred: Tensor, target: Tensor, hidden: Tensor) -> Tensor:
    """Per-patch squared errors of predictions that hold hidden patches only.

    Args:
        pred: (B, K, M, P), predictions of the patches ``hidden``.
        target: (B, N, P).
        hidden: long (B, K, M).

    Returns:
        (B, K, M), each the mean over P; averaged over everything it is :func:`reconstruction_loss`.
    """
    batch, parts, length = hidden.shape
    index = hidden.reshape(batch, parts * length, 1).expand(-1, -1, target.shape[-1])
    with torch.autocast(pred.device.type, enabled=False):
        wanted = target.float().gather(1, index).view(batch, parts, length, -1)
        return _MeanSquare.apply(pred.float() - wanted)


def packed_errors(pred: Tensor, target: Tensor, place: Tensor) -> Tensor:
    """:func:`hidden_errors` of predictions that come one after the other, as those of a ragged plan do.

    Args:
        pred: (H, P).
        target: (B, N, P).
        place: long (H,), the patch that each predicts, as an index into (B, N) flattened.

    Returns:
        (H,).
    """
    with torch.autocast(pred.device.type, enabled=False):
        return _MeanSquare.apply(pred.float() - target.float().flatten(0, 1)[place])


def block_weights(mask: Tensor, grid: tuple[int, int]) -> Tensor:
    """BootMAE's weight map: ``W = M + M * mean3x3(M)``, what lies outside of the image counting as visible.

    Args:
        mask: bool (B, K, N).
        grid: rows and columns.

    Returns:
        (B, K, N) fp32; 0 at visible patches, 1 + n/9 at hidden ones, n of whose 3 x 3 are hidden (itself too).
    """
    hidden = mask.unflatten(-1, grid).flatten(0, 1)[:, None].float()
    return (hidden + hidden * F.avg_pool2d(hidden, 3, stride=1, padding=1)).view(mask.shape)


def at_least_fp32(x: Tensor) -> Tensor:
    """Halves as fp32; what is as exact or more stays as it is."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def self_consistency_loss(pred: Tensor, mask: Tensor, normalizer: str = 'overlap') -> Tensor:
    """``L_consistency`` of EMAE: predictions of one patch by different parts shall agree.

    A term is an image, an unordered pair of its parts (i, j) and a patch hidden in both:
    ``mean_P |sg(x_i) - x_j| + |x_i - sg(x_j)|``. The loss is the sum of all terms of the batch divided by

    * ``normalizer='overlap'``: their number. One mean over (image, pair, overlapping patch): every term weighs the
      same, in whichever image, pair or part number it stands;
    * ``normalizer='all'``: the number of (image, pair, patch) triples, over all N patches of every pair that the image
      has. A part that hides nothing of an image (it is absent there, or sees everything) predicts nothing and is in no
      pair.

    With parts of equal length in every image (parallel masks, K dividing N) this is the mean over the pairs of the mean
    over the batch, and 'all' divides by B * N a pair: (K-2)/K of 'overlap'. 0 where nothing is hidden twice (K = 2
    under parallel masks). The published description fixes neither normaliser nor weight. 'overlap' is our reading;
    'all', a mean over all N patches, is that of a public third-party implementation. Both are options here.

    Each pair enters the value twice and the gradient of each side once: the value is 2S, the gradient that of S, where
    S holds ``|x_i - x_j|`` once.

    Args:
        pred: (B, K, N, P); values at visible patches are ignored.
        mask: bool (B, K, N), any masks; False throughout in a part that an image does not have.
        normalizer: 'overlap' or 'all'.

    Returns:
        A scalar.
    """
    _check(pred, mask)
    count = consistency_terms(mask, normalizer)
    if mask.shape[1] < 2:
        return pred.float().sum() * 0
    with torch.autocast(pred.device.type, enabled=False):
        return _MaskedPairs.apply(pred.float(), mask, 1 / (count.clamp(min=1) * pred.shape[-1]))


def consistency_terms(mask: Tensor, normalizer: str = 'overlap') -> Tensor:
    """The denominator of :func:`self_consistency_loss`: how many terms, or triples, the masks bool (B, K, N) have.

    Returns:
        A long scalar on the device of the masks.
    """
    if normalizer == 'overlap':
        return _pairs_among(mask.sum(dim=1)).sum()
    if normalizer == 'all':
        return _pairs_among(mask.any(dim=2).sum(dim=1)).sum() * mask.shape[2]
    raise ValueError(
        f"normalizer is '{normalizer}': use 'overlap' (patches hidden in both parts) or 'all' (all N patches of a pair)"
    )


def _pairs_among(count: Tensor) -> Tensor:
    return count * (count - 1) // 2


def agreement_loss(pred: Tensor) -> Tensor:
    """:func:`self_consistency_loss` with ``normalizer='overlap'`` for parallel masks, without unshuffling.

    Under parallel masks each patch is hidden in exactly K-1 parts and all pairs overlap in N * (K-2)/K patches: B * N *
    (K-1)(K-2)/2 terms, on static slices.

    Args:
        pred: (B, K, M, P), predictions of the hidden patches of each part in the order of a partition plan
            (``MaskPlan.partition``): group by group, ascending, M = (K-1) * N/K.

    Returns:
        A scalar; 0 when K < 3, where no patch is predicted twice.
    """
    batch, parts, length, values = pred.shape
    if parts < 3:
        return pred.float().sum() * 0
    if length % (parts - 1):
        raise ValueError(f'{length} hidden patches are not {parts - 1} equal groups: use a partition plan')
    size = length // (parts - 1)
    pairs = parts * (parts - 1) // 2
    with torch.autocast(pred.device.type, enabled=False):
        x = pred.float().view(batch, parts, parts - 1, size, values)
        weight = 1 / (pairs * batch * (parts - 2) * size * values)
        if torch.compiler.is_compiling():
            # A compiler fuses the plain sum and its gradient into kernels that store no coefficients.
            runs = [(x[:, i, in_i], x[:, j, in_j]) for i, j, in_i, in_j in _common_runs(parts)]
            once = weight * sum((one - other).abs().sum() for one, other in runs)
            return once + once.detach()
        return _PartitionPairs.apply(x, weight)


class _MeanSquare(torch.autograd.Function):
    """``x.square().mean(-1)`` in one pass either way, where autograd's takes two forward and three backward."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return torch.linalg.vecdot(x, x) / x.shape[-1]

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return x * (grad * (2 / x.shape[-1]))[..., None]


class _MaskedPairs(torch.autograd.Function):
    """``2 * weight * sum_ij sum m_i m_j |x_i - x_j|`` whose gradient is that of half of it.

    Instead of the (B, K, K, N, P) tensor it keeps one coefficient a prediction, ``c_k = weight * sum_j m_k m_j
    sign(x_k - x_j)``: the value is ``2 sum_k c_k x_k`` and the gradient is ``c``. The sign count also gives equal
    predictions (frequent in bf16) the gradient 0 that the definition gives them, which a sort would not.
    """

    @staticmethod
    def forward(ctx, x: Tensor, mask: Tensor, weight: Tensor) -> Tensor:
        coefficient = torch.zeros_like(x)
        for i, j in combinations(range(x.shape[1]), 2):
            sign = torch.sign(x[:, i] - x[:, j])
            sign.masked_fill_(~(mask[:, i] & mask[:, j])[..., None], 0)
            coefficient[:, i] += sign
            coefficient[:, j] -= sign
        coefficient *= weight
        ctx.save_for_backward(coefficient)
        # Whatever stands at visible places, NaN included, must not enter.
        return 2 * (coefficient * x).masked_fill(~mask[..., None], 0).sum()

    @staticmethod
    def backward(ctx, grad: Tensor):
        (coefficient,) = ctx.saved_tensors
        return grad * coefficient, None, None


class _PartitionPairs(torch.autograd.Function):
    """:class:`_MaskedPairs` for dense predictions (B, K, K-1, V, P) of a partition plan, one weight for all pairs."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: float) -> Tensor:
        coefficient = torch.zeros_like(x)
        for i, j, in_i, in_j in _common_runs(x.shape[1]):
            sign = torch.sign(x[:, i, in_i] - x[:, j, in_j])
            coefficient[:, i, in_i] += sign
            coefficient[:, j, in_j] -= sign
        coefficient *= weight
        ctx.save_for_backward(coefficient)
        return 2 * (coefficient * x).sum()

    @staticmethod
    def backward(ctx, grad: Tensor):
        (coefficient,) = ctx.saved_tensors
        return grad * coefficient, None


def _common_runs(parts: int) -> Iterator[tuple[int, int, slice, slice]]:
    """For all parts i < j of a partition plan, where both hold predictions of the same groups.

    Part k predicts all groups but its own, so group g stands in its slot g, or g-1 once past k. The groups hidden in
    both are three runs, each a static slice on either side; empty ones are left out.
    """
    for i, j in combinations(range(parts), 2):
        if i:
            yield i, j, slice(0, i), slice(0, i)
        if j - i > 1:
            yield i, j, slice(i, j - 1), slice(i + 1, j)
        if j < parts - 1:
            yield i, j, slice(j, None), slice(j, None)


def _check(pred: Tensor, mask: Tensor) -> None:
    if pred.dim() != 4 or mask.shape != pred.shape[:3]:
        raise ValueError(
            f'pred must be (B, K, N, P) and mask (B, K, N), got {tuple(pred.shape)} and {tuple(mask.shape)}'
        )
    if mask.dtype != torch.bool:
        raise ValueError(f'mask must be bool with True = hidden, got {mask.dtype}: use mask.bool()')
