"""How much features differ from each other: what collapses before anything else shows it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mim_mm.evaluation.frozen.ranks import rankme

# Below these, or above the last, training has left what published methods show (see docs/quality.md).
LEAST_STD = 0.1
LEAST_RANK = 0.02
SAYS_NOTHING = 0.995
SAME_FOR_ALL = 0.05


@torch.no_grad()
def variety(features: Tensor) -> dict[str, float]:
    """Two numbers that fall when features collapse.

    ``feature_std``: standard deviation over the rows of features of length 1, averaged over the dimensions, times
    ``sqrt(D)`` (Chen and He, SimSiam, CVPR 2021): 0 when all rows point the same way, about 1 when they point anywhere.
    ``feature_rank``: RankMe (:func:`mim_mm.evaluation.frozen.ranks.rankme`) with epsilon 0, as it was always logged
    (1e-7 adds 0.2 % at most for D = 1024): 1 when all rows are multiples of one, at most min(B, D).

    Args:
        features: (B, D), B at least 2; computed in fp32 on their device, and waited for.
    """
    std, rank = variety_numbers(features).tolist()
    return dict(feature_std=std, feature_rank=rank)


@torch.no_grad()
def variety_numbers(features: Tensor) -> Tensor:
    """The two of :func:`variety` as fp32 (2,) on the device of the features (B, D); its SVD is waited for."""
    with torch.autocast(features.device.type, enabled=False):
        x = features.detach().float()
        std = F.normalize(x, dim=1).std(dim=0).mean() * x.shape[1] ** 0.5
        rank = rankme(x, epsilon=0.0)
    return torch.stack([std, rank])


def collapse_signs(found: dict[str, float], rows: int) -> dict[str, str]:
    """``{sign: sentence}`` for those of the numbers that no method that works shows.

    Args:
        found: any of ``feature_std``; ``feature_rank``; ``teacher_entropy`` and ``teacher_spread`` as parts of log K.
        rows: B, of which the rank is a part.
    """
    signs = {}
    if found.get('feature_std', 1.0) < LEAST_STD:
        signs['std'] = (
            f'features of different images are nearly equal: their spread is {found["feature_std"]:.3f} where 1 is '
            f'anywhere and {LEAST_STD} the least of a method that learns'
        )
    if found.get('feature_rank', rows) < max(1.5, LEAST_RANK * rows):
        signs['rank'] = f'features lie in {found["feature_rank"]:.1f} dimensions, of {rows} images'
    entropy, spread = found.get('teacher_entropy'), found.get('teacher_spread')
    if entropy is not None and entropy > SAYS_NOTHING:
        signs['uniform'] = f'the teacher says nothing: its entropy is {entropy:.1%} of that of all prototypes alike'
    if spread is not None and spread < SAME_FOR_ALL:
        signs['constant'] = (
            f'the teacher names the same prototypes for all images: the entropy of its mean is {spread:.1%} of the '
            'largest possible'
        )
    return signs
