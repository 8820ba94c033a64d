"""Random masking (He et al., Masked Autoencoders Are Scalable Vision Learners, section 3) and its K-fold ablation."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from mim_mm.masking.adaptive import one_ratio
from mim_mm.masking.base import Masker, ratio_text
from mim_mm.masking.plan import MaskPlan, draw_uniform, num_hidden
from mim_mm.registry import MODELS


@MODELS.register_module()
class RandomMasking(Masker):
    """Hide ``ceil(N * ratio)`` patches chosen uniformly without replacement; one part an image.

    Args:
        ratio: share of hidden patches, 0.75 in MAE.
        predict: share of all patches that is predicted, a random choice of the hidden ones; the rest gets no token at
            all (CrossMAE's prediction ratio, for ``CrossAttentionDecoder``). None predicts every hidden patch.
        shared: hide the same patches in all images of a batch, each rank its own: MSN's ``patch_drop``, one permutation
            a step.
    """

    fixed_count = True

    def __init__(self, ratio: float = 0.75, predict: float | None = None, shared: bool = False) -> None:
        ratio = one_ratio(ratio)
        if predict is not None and not 0 < predict <= ratio:
            raise ValueError(f'predict is {predict}: only hidden patches are predicted, so use 0 < predict <= {ratio}')
        self.ratio = ratio
        self.predict = predict
        self.shared = shared

    @property
    def published(self) -> str:
        return f'random {ratio_text(self.ratio)}'

    def __call__(self, tokens: Tensor, generator: torch.Generator | None = None) -> MaskPlan:
        """``tokens`` (B, N, D), of which only shape and device matter; returns a plan with K = 1."""
        batch, patches = tokens.shape[:2]
        noise = draw_uniform((1 if self.shared else batch, patches), tokens, generator).expand(batch, -1)
        plan = MaskPlan.from_scores(noise[:, None], patches - num_hidden(patches, self.ratio))
        if self.predict is None:
            return plan
        kept = plan.num_visible[0] + max(1, round(patches * self.predict))
        if kept >= patches:
            return plan
        return replace(plan, num_thrown=patches - kept)


@MODELS.register_module()
class IndependentMasking(Masker):
    """K random masks drawn independently, the "pure random mask" of the EMAE ablation.

    Patches may be visible in several parts or in none.

    Args:
        num_parts: K.
        ratio: share of hidden patches in each part; None means 1 - 1/K, the share that parallel masking has.
    """

    fixed_count = True
    # How many patches two parts both hide is chance.
    fixed_overlap = False

    def __init__(self, num_parts: int, ratio: float | None = None) -> None:
        if num_parts < 1:
            raise ValueError(f'num_parts is {num_parts}: at least 1 part is needed')
        if num_parts == 1 and ratio is None:
            raise ValueError('num_parts is 1 and no ratio is given: 1 - 1/K would hide nothing; state ratio=0.75')
        self.num_parts = num_parts
        self.ratio = 1 - 1 / num_parts if ratio is None else one_ratio(ratio)

    @property
    def published(self) -> str:
        return f'independent {ratio_text(self.ratio)}'

    def __call__(self, tokens: Tensor, generator: torch.Generator | None = None) -> MaskPlan:
        """``tokens`` (B, N, D); returns a plan with K parts of equal length."""
        batch, patches = tokens.shape[:2]
        noise = draw_uniform((batch, self.num_parts, patches), tokens, generator)
        return MaskPlan.from_scores(noise, patches - num_hidden(patches, self.ratio))
