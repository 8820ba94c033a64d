"""A number of hidden patches that is drawn for every image, and images that stay whole (iBOT, AttMask)."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import torch
from torch import Tensor

from mim_mm.masking.adaptive import check_ratio
from mim_mm.masking.base import Around, PartCount, counts, published, ratio_text
from mim_mm.masking.plan import MaskPlan, draw_on_host, exact_ratio, patches_of
from mim_mm.registry import MODELS

RANDOM = MappingProxyType(dict(type='RandomMasking'))


@MODELS.register_module()
class DrawnRatio(Around):
    """Another masker on a share of the images only, and there with a ratio of its own for each; one part an image.

    iBOT draws the ratio of each crop among 0 and U(0.1, 0.5), each with probability 1/2. The masker decides which
    patches are hidden first: ``int(N * r)`` of them are, as the release rounds. So the masks of iBOT's "rand" are
    ``DrawnRatio(RandomMasking())``, salience with its counts ``DrawnRatio(SalienceMasking())``. What brings its own
    counts keeps them with ``ratio=None``: iBOT's blocks, ``BlockMasking(ratio=(0.1, 0.5), fill='none',
    round_down=True)``, AttMask, and salience with an ``AdaptiveRatio`` (AMR).

    An image that is not masked is a part that sees everything. At least one image of a call is masked, as in AttMask:
    methods that reconstruct have no loss otherwise. The release may mask none, which with its two crops of B images
    happens once in ``2 ** (2 * B)`` steps.

    Args:
        masker: config of a masker of one part that throws nothing away; the default is iBOT's "rand".
        ratio: share of hidden patches, or (low, high) of a uniform draw for each image; None leaves it to the masker.
        share: probability that an image is masked.
    """

    def __init__(
        self, masker: Mapping = RANDOM, ratio: float | tuple[float, float] | None = (0.1, 0.5), share: float = 0.5
    ) -> None:
        if not 0 < share <= 1:
            raise ValueError(f'share is {share}: the probability that an image is masked lies in (0, 1], e.g. 0.5')
        self.inner = MODELS.build(dict(masker))
        self.ratio = None if ratio is None else check_ratio(ratio)
        self.share = share

    @property
    def published(self) -> str:
        inner = published(self.inner)
        return inner if self.ratio is None else f'{inner.split(" r=")[0]} {ratio_text(self.ratio)}'

    def counts(self, num_patches: int) -> list[PartCount]:
        if self.ratio is None:
            return counts(self.inner, num_patches)
        hidden = patches_of(num_patches, sum(map(exact_ratio, self.ratio)) / 2, down=True)
        return [PartCount(num_patches - hidden, hidden)]

    def __call__(
        self, tokens: Tensor, generator: torch.Generator | None = None, attention: Tensor | None = None
    ) -> MaskPlan:
        """``tokens`` (B, N, D) for the masker, with ``attention`` (B, N) where it needs it; a plan with K = 1."""
        plan = self.inner(tokens, generator, **({'attention': attention} if self.needs_attention else {}))
        if plan.num_parts != 1 or plan.num_thrown:
            raise ValueError(
                f'{type(self.inner).__name__} gives {plan.num_parts} parts and throws {plan.num_thrown} patches away: '
                'DrawnRatio wants a masker of one part that throws none, e.g. RandomMasking or SalienceMasking'
            )
        batch, patches = len(plan.order), plan.num_patches
        if self.ratio is None:
            visible = patches - plan.hidden_per_image()
        else:
            low, high = self.ratio
            drawn = draw_on_host((batch,), tokens, generator).double()
            visible = patches - (patches * (low + (high - low) * drawn)).long()
        gate = draw_on_host((batch,), tokens, generator)
        masked = (gate < self.share) | (gate == gate.min())
        return MaskPlan.from_lengths(plan.order, torch.where(masked, visible, patches))
