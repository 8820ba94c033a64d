"""Salience-based masking, SBAM (Choi et al., ECCV 2024, arXiv 2404.08327): hide what collects most affinity.

B images, N patches, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mim_mm.masking.adaptive import AdaptiveRatio, RandomWarmUp, build_ratio, hidden_counts
from mim_mm.masking.base import PartCount, ratio_text
from mim_mm.masking.plan import MaskPlan, draw_uniform, num_hidden
from mim_mm.registry import MODELS

# Column sums average 1. A spread below this is rounding, and must not be blown up to the whole of [0, 1].
SMALLEST_SPREAD = 1e-4
# Affinities computed at once: 2**26 of them are 256 MiB. One go for 1,700 images of 196 patches, slices for fine grids.
AFFINITIES_AT_ONCE = 2**26
# The ratio that goes without saying where the published table says salience.
PUBLISHED_RATIO = 0.75


@torch.no_grad()
def salience(tokens: Tensor, logit_scale: float | None = None) -> Tensor:
    """How much affinity each patch collects from all patches of its image, without parameters or gradient.

    ``A = X X^T``; softmax over each row; ``s_j = sum_i A_ij`` (column sums, attention *received*);
    ``S = (s - min) / (max - min)`` of each image. Always fp32: logits are thousands.

    Args:
        tokens: X (B, N, D), patch embedding plus position embedding, without class token.
        logit_scale: factor on the logits; None (1) is the published form, ``D ** -0.5`` that of attention.

    Returns:
        S (B, N) in [0, 1], fp32; 0 everywhere (up to rounding) where all tokens of an image are equal.
    """
    if tokens.dim() != 3:
        raise ValueError(f'tokens must be (B, N, D), got {tuple(tokens.shape)}: flatten the grid to N patches')
    images_at_once = max(1, AFFINITIES_AT_ONCE // tokens.shape[1] ** 2)
    with torch.autocast(tokens.device.type, enabled=False):
        received = torch.cat([_received(x.float(), logit_scale) for x in tokens.split(images_at_once)])
        low, high = received.aminmax(dim=1, keepdim=True)
        return (received - low) / (high - low).clamp(min=SMALLEST_SPREAD)


def _received(x: Tensor, logit_scale: float | None) -> Tensor:
    """Column sums (B, N) of the row softmax of the affinities of tokens (B, N, D)."""
    logits = x @ x.transpose(1, 2)
    if logit_scale is not None:
        logits = logits * logit_scale
    return logits.softmax(dim=-1).sum(dim=1)


@MODELS.register_module()
class SalienceMasking(RandomWarmUp):
    """Hide the ``ceil(N * ratio)`` patches of largest ``S + noise * U[0, 1)``; one part an image.

    Args:
        ratio: share of hidden patches, or ``dict(type='AdaptiveRatio', ...)`` (AMR). With scope 'per_image' the plan
            is ragged; reading the ratios off the device is then one wait a step.
        noise: width of the uniform noise, 0.5 as published; 0 hides the same patches every time.
        logit_scale: see :func:`salience`.
        random_epochs: epochs of random masks before (ratio, or ``base`` of the adaptive one). The release starts from
            a checkpoint of 100 epochs of MAE.
    """

    def __init__(
        self,
        ratio: float | dict | AdaptiveRatio = 0.75,
        noise: float = 0.5,
        logit_scale: float | None = None,
        random_epochs: float = 0,
    ) -> None:
        super().__init__(random_epochs)
        if noise < 0:
            raise ValueError(f'noise is {noise}: it is the width of a uniform distribution, 0.5 as published')
        self.ratio = build_ratio(ratio)
        self.noise, self.logit_scale = noise, logit_scale

    @property
    def fixed_count(self) -> bool:
        return not isinstance(self.ratio, AdaptiveRatio)

    @property
    def published(self) -> str:
        if isinstance(self.ratio, AdaptiveRatio):
            return 'salience, ratio by image'
        return 'salience' if self.ratio == PUBLISHED_RATIO else f'salience {ratio_text(self.ratio)}'

    def counts(self, num_patches: int) -> list[PartCount]:
        hidden = num_hidden(num_patches, self._middle())
        return [PartCount(num_patches - hidden, hidden)]

    def _middle(self) -> float:
        return self.ratio.base if isinstance(self.ratio, AdaptiveRatio) else self.ratio

    def __call__(self, tokens: Tensor, generator: torch.Generator | None = None) -> MaskPlan:
        """``tokens`` (B, N, D) with position embedding, without class token; returns a plan with K = 1."""
        patches = tokens.shape[1]
        drawn = draw_uniform(tuple(tokens.shape[:2]), tokens, generator)
        adaptive = isinstance(self.ratio, AdaptiveRatio)
        if self.warming_up:
            return MaskPlan.from_scores(drawn[:, None], patches - num_hidden(patches, self._middle()))
        guide = salience(tokens, self.logit_scale)
        scores = (guide + self.noise * drawn)[:, None]
        if not adaptive:
            return MaskPlan.from_scores(scores, patches - num_hidden(patches, self.ratio))
        hidden = hidden_counts(self.ratio.exact(guide), patches)
        if self.ratio.scope == 'per_batch':
            return MaskPlan.from_scores(scores, patches - hidden[0])
        return MaskPlan.from_lengths(scores.argsort(dim=-1), [patches - count for count in hidden])
