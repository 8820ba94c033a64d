"""EMAE: Efficient Masked Autoencoders with Self-Consistency (Li et al., TPAMI 2024, arXiv 2302.14431)."""

from __future__ import annotations

import logging

import torch
from mmengine.logging import print_log
from torch import Tensor

from mim_mm.algorithms.base import Terms
from mim_mm.algorithms.global_mean import Counts
from mim_mm.algorithms.mae import MAE
from mim_mm.clock import Clock
from mim_mm.encoders.mask_units import MaskUnits
from mim_mm.losses import agreement_loss, consistency_terms, self_consistency_loss
from mim_mm.masking import MaskPlan
from mim_mm.registry import MODELS


@MODELS.register_module()
class EMAE(MAE):
    """MAE on K disjoint parts of each image at once, whose predictions of the same patch are pulled together.

    ``L_total = whole_weight * L_whole + consistency_weight * L_consistency``: L_whole as in :class:`MAE`, L_consistency
    as in :func:`mim_mm.losses.self_consistency_loss`. The paper's description gives L_total = L_whole + L_consistency
    and fixes neither the normaliser of the second term nor a ramp: the defaults (weight 1, mean over overlapping
    patches, no ramp) are our reading. A public third-party implementation takes the mean over all N patches:
    ``normalizer='all'``, the second reading, which with K = 4 is half the weight.

    The recipes have ``consistency_weight=0.1``: on CIFAR-10 a weight costs the more the larger it is, 1 undoes what the
    parts gain over MAE, with either normaliser and with a ramp, and 0.1 costs about half a point (docs/methods.md).

    Any masker works; ``ParallelMasking(num_parts=4)`` is EMAE, ``IndependentMasking`` and ``ComplementaryMasking`` are
    rows of its ablation. Where no patch is hidden in two parts (K = 2, complementary masks) there is no consistency
    term, which the log says at the first step.

    **Consistency alone collapses.** With ``whole_weight=0`` a constant prediction is an exact minimum, and training
    goes there: the term fell from 0.111 to 0.0000 in 250 steps while the error stayed above that of predicting each
    patch's mean. It cannot be the paper's ablation row (b), "pure self-consistency", with 64.9 % linear. What that row
    could mean: the consistency term beside the reconstruction of one part, or of the visible patches; parts pulled
    towards one whose target is the image; or independent random masks with both terms. We do not know which.

    Args:
        whole_weight: weight of the reconstruction; 0 is refused without ``allow_collapse``.
        consistency_weight: weight of the consistency term; 0 gives the row "pixel reconstruction" and skips its cost.
        normalizer: 'overlap' or 'all', the denominator of the consistency term.
        consistency_ramp: epochs (fractions allowed) over which the consistency term rises linearly from 0 to its
            weight, step by step; 0 for none.
        allow_collapse: permit ``whole_weight=0``, to look at the collapse.
        **kwargs: as :class:`MAE`.

    Raises:
        ValueError: a weight or the ramp is negative, both are 0, or ``whole_weight`` is 0 without ``allow_collapse``.
    """

    def __init__(
        self,
        whole_weight: float = 1.0,
        consistency_weight: float = 1.0,
        normalizer: str = 'overlap',
        consistency_ramp: float = 0,
        allow_collapse: bool = False,
        **kwargs,
    ) -> None:
        super().__init__(**kwargs)
        if whole_weight < 0 or consistency_weight < 0 or not (whole_weight or consistency_weight):
            raise ValueError(
                f'whole_weight={whole_weight} and consistency_weight={consistency_weight}: they must be >= 0, one > 0'
            )
        if not whole_weight and not allow_collapse:
            raise ValueError(
                'whole_weight=0 leaves the consistency term alone, whose exact minimum is a constant prediction: it '
                'trains to a collapse and is not the "pure self-consistency" of the paper\'s ablation. Give the '
                'reconstruction a weight, or set allow_collapse=True to look at the collapse'
            )
        if normalizer not in ('overlap', 'all'):
            raise ValueError(f"normalizer is '{normalizer}': use 'overlap' or 'all'")
        if consistency_ramp < 0:
            raise ValueError(
                f'consistency_ramp is {consistency_ramp}: a ramp needs a positive length in epochs, 0 is none'
            )
        self.whole_weight = whole_weight
        self.consistency_weight = consistency_weight
        self.normalizer = normalizer
        self.consistency_ramp = consistency_ramp
        # How far the ramp has come; a tensor, so that changing it neither syncs nor recompiles.
        self.register_buffer('consistency_scale', torch.ones(()), persistent=False)
        self.looked_for_overlap = False

    def begin_step(self, clock: Clock) -> None:
        """The consistency term goes up its ramp."""
        super().begin_step(clock)
        if self.consistency_ramp:
            self.consistency_scale.fill_(clock.ramp(self.consistency_ramp))

    def draw_plan(
        self, tokens: Tensor, generator: torch.Generator | None = None, units: MaskUnits | None = None
    ) -> MaskPlan:
        """As every method's; in the first training step it says where the masks leave no consistency term."""
        plan = super().draw_plan(tokens, generator, units)
        first = self.training and not self.looked_for_overlap and not torch.compiler.is_compiling()
        if first and self.consistency_weight:
            self.looked_for_overlap = True
            if not int(self.count_overlap(plan)):
                print_log(
                    f'No patch of the first batch is hidden in two parts ({type(self.masker).__name__}, '
                    f'K = {plan.num_parts}): there is nothing to agree on, the consistency term is 0 and this trains '
                    'as MAE does on these masks. EMAE needs 3 parts or more that overlap, e.g. '
                    'ParallelMasking(num_parts=4); if it is meant, set model.consistency_weight=0',
                    logger='current',
                    level=logging.WARNING,
                )
        return plan

    def count_overlap(self, plan: MaskPlan) -> int | Tensor:
        """(image, pair of parts, patch hidden in both) terms of a batch; on the device unless known beforehand."""
        if plan.partition and plan.uniform:
            batch, parts, patches = plan.order.shape
            return batch * patches * (parts - 1) * (parts - 2) // 2
        return consistency_terms(plan.mask)

    def count_terms(self, plan: MaskPlan) -> Counts:
        """Reconstruction and consistency have their own counts."""
        if self.normalizer == 'all':
            overlap = consistency_terms(plan.mask, 'all')
        else:
            overlap = self.count_overlap(plan)
        return {**super().count_terms(plan), 'loss_consistency': overlap}

    def compare(self, predictions: Tensor, target: Tensor, plan: MaskPlan) -> Terms:
        """Adds ``loss_consistency`` (weighted) and ``consistency`` (the bare term) to what :class:`MAE` returns."""
        losses, metrics = super().compare(predictions, target, plan)
        losses['loss_whole'] = self.whole_weight * losses['loss_whole']
        if self.consistency_weight:
            consistency = self.consistency(predictions, plan)
            losses['loss_consistency'] = self.consistency_weight * self.consistency_scale * consistency
            metrics['consistency'] = consistency
        return Terms(losses, metrics)

    def consistency(self, predictions: Tensor, plan: MaskPlan) -> Tensor:
        """The bare consistency term: static slices for equal parallel masks, the general form for others."""
        if plan.partition and plan.uniform:
            value = agreement_loss(predictions)
            parts = plan.num_parts
            return value * ((parts - 2) / parts) if self.normalizer == 'all' else value
        return self_consistency_loss(self.spread(predictions, plan), plan.mask, self.normalizer)
