"""mmengine's truncated normal without its outliers.

``mmengine.model.weight_init.trunc_normal_`` (and with it the initializer ``TruncNormal`` and every backbone and head of
mmpretrain and mmdet that calls it) maps uniform numbers through the inverse error function. With std 0.02 and the cut at
an absolute +-2, the uniform range is [-1, 1) in fp32; a draw of exactly -1 (one in 2 ** 24) becomes minus infinity and
is clamped to -2, a hundred standard deviations out: a few such weights in every ViT-B. What timm, from which the
releases take it, means by the same arguments is a normal distribution that the cut never touches.
"""

from __future__ import annotations

import torch
from torch import Tensor

# Beyond this many standard deviations a normal draw is rarer (2e-9) than the rounding that made the outliers.
WIDEST = 6.0


def trunc_normal_(tensor: Tensor, mean: float = 0.0, std: float = 1.0, a: float = -2.0, b: float = 2.0) -> Tensor:
    """Fill ``tensor`` with N(mean, std^2) cut to [a, b], absolute values as in timm and torch; returns it.

    Bounds further out than six standard deviations are drawn in to there. torch >= 2.13 rejects what lies outside and
    has no outliers at any bound; earlier ones use mmengine's formula, whose worst value is then at six of them.
    """
    low, high = max(a, mean - WIDEST * std), min(b, mean + WIDEST * std)
    return torch.nn.init.trunc_normal_(tensor, mean, std, low, high)


def install_trunc_normal() -> None:
    """Put :func:`trunc_normal_` below mmengine's functions, also for modules that imported those before."""
    from mmengine.model import weight_init

    weight_init._no_grad_trunc_normal_ = trunc_normal_
