"""EMAE: Efficient Masked Autoencoders with Self-Consistency (Li et al., TPAMI 2024, arXiv 2302.14431)."""

from __future__ import annotations

import torch
from torch import Tensor

from mim_mm.algorithms.mae import MAE
from mim_mm.losses import agreement_loss, self_consistency_loss
from mim_mm.masking import MaskPlan
from mim_mm.registry import MODELS


@MODELS.register_module()
class EMAE(MAE):
    """MAE on K disjoint parts of each image at once, whose predictions of the same patch are pulled together.

    ``L_total = whole_weight * L_whole + consistency_weight * L_consistency``: L_whole as in :class:`MAE`, L_consistency
    as in :func:`mim_mm.losses.self_consistency_loss`. The paper's description gives L_total = L_whole + L_consistency
    and fixes neither the normaliser of the second term nor a ramp: the defaults (weight 1, mean over overlapping
    patches, no ramp) are our reading.

    Any masker works; ``ParallelMasking(num_parts=4)`` is EMAE, ``IndependentMasking`` and ``ComplementaryMasking`` are
    rows of its ablation.

    Args:
        whole_weight: weight of the reconstruction; 0 gives the row "consistency only".
        consistency_weight: weight of the consistency term; 0 gives the row "pixel reconstruction" and skips its cost.
        normalizer: 'overlap' or 'all', the denominator of the consistency term.
        **kwargs: as :class:`MAE`.
    """

    def __init__(
        self,
        whole_weight: float = 1.0,
        consistency_weight: float = 1.0,
        normalizer: str = 'overlap',
        **kwargs,
    ) -> None:
        super().__init__(**kwargs)
        if whole_weight < 0 or consistency_weight < 0 or not (whole_weight or consistency_weight):
            raise ValueError(
                f'whole_weight={whole_weight} and consistency_weight={consistency_weight}: they must be >= 0, one > 0'
            )
        if normalizer not in ('overlap', 'all'):
            raise ValueError(f"normalizer is '{normalizer}': use 'overlap' or 'all'")
        self.whole_weight = whole_weight
        self.consistency_weight = consistency_weight
        self.normalizer = normalizer
        # ConsistencyRampHook fills this in; a tensor, so that changing it neither syncs nor recompiles.
        self.register_buffer('consistency_scale', torch.ones(()), persistent=False)

    def compare(self, predictions: Tensor, target: Tensor, plan: MaskPlan) -> dict[str, Tensor]:
        """Adds ``loss_consistency`` (weighted) and ``consistency`` (the bare term) to what :class:`MAE` returns."""
        out = super().compare(predictions, target, plan)
        out['loss_whole'] = self.whole_weight * out['loss_whole']
        if self.consistency_weight:
            consistency = self.consistency(predictions, plan)
            out['loss_consistency'] = self.consistency_weight * self.consistency_scale * consistency
            out['consistency'] = consistency
        return out

    def consistency(self, predictions: Tensor, plan: MaskPlan) -> Tensor:
        """The bare consistency term: static slices for equal parallel masks, the general form for others."""
        if plan.partition and plan.uniform:
            value = agreement_loss(predictions)
            parts = plan.num_parts
            return value * ((parts - 2) / parts) if self.normalizer == 'all' else value
        return self_consistency_loss(self.spread(predictions, plan), plan.mask, self.normalizer)
