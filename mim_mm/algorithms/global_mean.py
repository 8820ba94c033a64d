"""The mean over the hidden patches of all ranks, from losses that are means over those of each rank.

DDP and FSDP average gradients over ranks with equal weight. Where ranks hide different numbers of patches (adaptive
ratios, blocks, masks that overlap by chance, batches of different size) that is a mean of means, and the result would
depend on how many GPUs share the batch. So the gradient of each rank is weighed by its share of the terms.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from mmengine.dist import all_reduce, get_world_size
from torch import Tensor

from mim_mm.masking.plan import host_index

Counts = Mapping[str, 'int | Tensor']


def rank_weights(terms: Tensor) -> Tensor:
    """``n_rank * world / sum_ranks n``, the weights with which a mean over ranks becomes one over all terms.

    A collective: every rank must call it, with as many counts. The host does not wait for the device.

    Args:
        terms: long (L,), how many terms each of L losses of this rank has, on the device that trains.

    Returns:
        (L,) fp32; 0 where no rank has a term.
    """
    total = terms.clone()
    all_reduce(total)
    return terms * get_world_size() / total.clamp(min=1)


def over_ranks(losses: dict[str, Tensor], count_terms: Callable[[], Counts], training: bool) -> dict[str, Tensor]:
    """Give losses, each the mean over the terms of this rank, the gradients that average to that of the global mean.

    Values stay as they are: what rank 0 logs is the mean over its own share of the batch. Nothing happens with one
    process, outside training or without gradients. Otherwise every rank takes part in every step, also with masks of
    equal counts: the batches of the ranks may differ in size.

    Outside of what ``torch.compile`` captures: the counts change from step to step.

    Args:
        losses: scalars, of which those that ``count_terms`` names are weighed.
        count_terms: returns how many terms each loss is the mean of; called only where it matters.
        training: whether the model trains.
    """
    if not training or not torch.is_grad_enabled() or get_world_size() == 1:
        return losses
    terms = {name: count for name, count in count_terms().items() if name in losses}
    if not terms:
        return losses
    device = next(iter(losses.values())).device
    own = [n if isinstance(n, Tensor) else host_index([n], device) for n in terms.values()]
    weights = rank_weights(torch.cat([n.reshape(1) for n in own]))
    weighed = {
        # The second summand is 0 and carries all of the gradient that the first, of weight 1, lacks.
        name: losses[name] + (weight - 1) * (losses[name] - losses[name].detach())
        for name, weight in zip(terms, weights.unbind(), strict=True)
    }
    return {**losses, **weighed}
