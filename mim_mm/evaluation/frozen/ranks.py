"""Effective ranks of features, which need no labels: RankMe and LiDAR.

Both are the exponential of an entropy (Roy and Vetterli, EUSIPCO 2007), of singular values of the features or of
eigenvalues of a discriminant matrix: from 1, when one direction holds everything, to the number of directions, when all
hold the same.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ['DELTA', 'EPSILON', 'Lidar', 'effective_rank', 'lidar', 'rankme']

EPSILON = 1e-7  # RankMe, equation 1, for numbers of 32 bits
DELTA = 1e-4  # LiDAR, added to the within-class covariance
ROUNDING = 1e-12  # of squares of numbers of 32 bits


def effective_rank(values: Tensor, epsilon: float = EPSILON) -> Tensor:
    """``exp(-sum p log p)`` with ``p = values / sum(values) + epsilon``, where 0 log 0 is 0.

    Args:
        values: (K,) singular values or eigenvalues, not negative.

    Returns:
        A scalar of their type, on their device; 1 up to epsilon where all are 0.
    """
    share = values / values.sum().clamp(min=torch.finfo(values.dtype).tiny) + epsilon
    return (-torch.xlogy(share, share).sum()).exp()


def rankme(features: Tensor, epsilon: float = EPSILON) -> Tensor:
    """RankMe (Garrido et al., ICML 2023, equation 1): the effective rank of the features' singular values.

    Nothing is centred or normalised before, as in the paper.

    Args:
        features: (N, D), float32 or float64, in whose precision it is computed.

    Returns:
        A scalar, 1 to min(N, D) up to epsilon; the SVD is waited for.
    """
    return effective_rank(torch.linalg.svdvals(features), epsilon)


class Lidar(NamedTuple):
    """LiDAR, and how many of the D eigenvalues of the within-class covariance are below delta.

    Along those delta, and not the features, says what noise is: the figure then depends on the features' scale.
    """

    value: float
    below_delta: int


@torch.no_grad()
def lidar(views: Tensor, delta: float = DELTA, epsilon: float = EPSILON) -> Lidar:
    """LiDAR (Thilak et al., ICLR 2024): the effective rank of linear discriminant analysis, images as classes.

    ``Sigma_b``: covariance of the n class means. ``Sigma_w``: mean over the classes of the covariance of their q views,
    plus ``delta`` times the identity. The value is the effective rank of the eigenvalues of
    ``Sigma_w^(-1/2) Sigma_b Sigma_w^(-1/2)``. Both covariances are unbiased (n - 1, and n (q - 1)).

    Args:
        views: (n, q, D) features of q views of each of n images; computed in float64.
        delta: above 0 where some direction does not vary within classes.

    Returns:
        The value is 1 to min(n - 1, D) up to epsilon; 1 where the class means differ by no more than rounding.

    Raises:
        ValueError: fewer than two images or views, or a within-class covariance that cannot be inverted.
    """
    n, q, width = views.shape
    if n < 2 or q < 2:
        raise ValueError(f'LiDAR of {n} images with {q} views each: at least two of both are needed')
    means = torch.stack([part.double().mean(0) for part in views])
    centred = means - means.mean(0)
    between = centred.T @ centred / (n - 1)
    within = torch.zeros(width, width, dtype=torch.float64, device=views.device)
    for part, mean in zip(views.split(64), means.split(64)):  # in double, all views at once would be gigabytes
        away = (part.double() - mean[:, None]).flatten(0, 1)
        within += away.T @ away / (n * (q - 1))
    if between.trace() <= ROUNDING * means.square().sum(1).mean():
        between = torch.zeros_like(between)  # the spectrum of rounding errors is flat, and would look like a high rank
    noise, axes = torch.linalg.eigh(within)
    below = int((noise < delta).sum())
    noise = noise.clamp(min=0) + delta
    if noise.min() <= 1e-14 * noise.max():  # what eigh is sure of, in float64
        raise ValueError(f'delta = {delta:g} leaves a within-class covariance that cannot be inverted: raise delta')
    whitened = axes / noise.sqrt()  # of the same eigenvalues as with Sigma_w^(-1/2), turned by the axes
    found = torch.linalg.eigvalsh(whitened.T @ between @ whitened).clamp(min=0)
    return Lidar(float(effective_rank(found, epsilon)), below)
