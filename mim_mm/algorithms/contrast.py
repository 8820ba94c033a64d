"""InfoNCE between the images of all ranks, as CMAE and MoCo v3 have it."""

from __future__ import annotations

import torch
from mmengine.dist import all_gather, get_rank
from torch import Tensor
from torch.nn import functional as F


def info_nce(queries: Tensor, keys: Tensor, image: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """``2 t CE`` of finding the own image among those of all ranks, the mean over the queries of this rank.

    The factor is that of the releases. Similarities are at least fp32, whatever the autocast. No gradient flows into
    keys. A collective: ranks have batches of one size.

    Args:
        queries: (R, D), unit vectors.
        keys: (B, D), unit vectors of the images of this rank.
        image: long (R,), the image of each query.
        temperature: t.

    Returns:
        The loss, and how often the own key is the nearest; scalars.
    """
    with torch.no_grad():
        everyone = torch.cat(all_gather(keys.contiguous()))
    with torch.autocast(queries.device.type, enabled=False):
        similarity = queries @ everyone.T / temperature
        own = image + len(keys) * get_rank()
        loss = 2 * temperature * F.cross_entropy(similarity, own)
    return loss, (similarity.argmax(dim=1) == own).float().mean()


def spread_of(vectors: Tensor) -> Tensor:
    """Mean over the dimensions D of the standard deviation of unit vectors (B, D), times sqrt(D)."""
    return vectors.float().std(dim=0, correction=0).mean() * vectors.shape[1] ** 0.5
