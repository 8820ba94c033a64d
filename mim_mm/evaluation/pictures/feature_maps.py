"""What patches of images have in common, as colours: the first principal components of their features."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ['pca_colours']


def pca_colours(patches: Tensor, low: float = 0.02, high: float = 0.98) -> tuple[Tensor, Tensor]:
    """The first three principal components of the patches of all images together, as R, G, B.

    Args:
        patches: (B, N, D); the components are those of all B * N patches, so a colour means the same in all images.
        low, high: quantiles of each component that become 0 and 1.

    Returns:
        float (B, N, 3) in 0..1, and the shares of the variance (3,). The sign of a component says nothing: here its
        largest entry is positive, so that the same features give the same picture.

    Raises:
        ValueError: fewer than four patches, or features that are all the same.
    """
    flat = patches.flatten(0, 1).double()
    if len(flat) < 4:
        raise ValueError(f'{len(flat)} patches have no three components: give more or larger images')
    centred = flat - flat.mean(dim=0)
    total = centred.square().sum()
    if total <= 1e-12 * flat.square().sum().clamp(min=1e-12):
        raise ValueError('the features of all patches are the same (a collapsed encoder?): there is nothing to draw')
    _, sizes, directions = torch.linalg.svd(centred, full_matrices=False)
    directions = directions[:3]
    largest = directions.gather(1, directions.abs().argmax(dim=1, keepdim=True))
    values = centred @ (directions * largest.sign()).T
    values = torch.nn.functional.pad(values, (0, 3 - values.shape[1]))
    floor, roof = values.quantile(low, dim=0), values.quantile(high, dim=0)
    colours = ((values - floor) / (roof - floor).clamp(min=1e-12)).clamp(0, 1)
    shares = torch.nn.functional.pad(sizes[:3].square() / total, (0, 3 - len(sizes[:3])))
    return colours.view(*patches.shape[:2], 3).float(), shares.float()
