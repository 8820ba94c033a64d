"""mmengine's truncated normal without its outliers.

``mmengine.model.weight_init.trunc_normal_`` (and with it the initializer ``TruncNormal`` and every backbone and head of
mmpretrain and mmdet that calls it) maps uniform numbers through the inverse error function. With std 0.02 and the cut
at an absolute +-2, the uniform range is [-1, 1) in fp32; a draw of exactly -1 (one in 2 ** 24) becomes minus infinity
and is clamped to -2, a hundred standard deviations out: a few such weights in every ViT-B. What timm, from which the
releases take it, means by the same arguments is a normal distribution that the cut never touches.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mim_mm.compat.on_import import after_import

if TYPE_CHECKING:
    from torch import Tensor

PATCHED = 'mmengine.model.weight_init'
# Beyond this many standard deviations a normal draw is rarer (2e-9) than the rounding that made the outliers.
WIDEST = 6.0


def trunc_normal_(tensor: Tensor, mean: float = 0.0, std: float = 1.0, a: float = -2.0, b: float = 2.0) -> Tensor:
    """Fill ``tensor`` with N(mean, std^2) cut to [a, b], absolute values as in timm and torch; returns it.

    Bounds further out than six standard deviations are drawn in to there. torch >= 2.13 rejects what lies outside and
    has no outliers at any bound; earlier ones use mmengine's formula, whose worst value is then at six of them.
    """
    import torch  # not before a model is initialised: ``import mim_mm`` is cheap

    low, high = max(a, mean - WIDEST * std), min(b, mean + WIDEST * std)
    return torch.nn.init.trunc_normal_(tensor, mean, std, low, high)


def install() -> None:
    """Put :func:`trunc_normal_` below mmengine's functions, now or as soon as they are imported.

    Below: ``trunc_normal_`` itself, which dozens of modules hold by name, looks up the function that is replaced.
    """
    after_import(PATCHED, _patch)


def _patch(module) -> None:
    module._no_grad_trunc_normal_ = trunc_normal_
