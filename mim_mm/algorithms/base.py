"""What all pretraining methods share: a masker, the clock, teachers, and how losses leave a step."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from mmengine.dist import get_rank
from mmengine.model import BaseModel
from torch import Tensor, nn

from mim_mm.algorithms.global_mean import Counts, over_ranks
from mim_mm.algorithms.teacher import Teacher
from mim_mm.clock import Clock, mask_seed
from mim_mm.encoders import Encoder
from mim_mm.encoders.mask_units import MaskUnits
from mim_mm.masking.base import needs_attention, set_clock, set_grid
from mim_mm.masking.plan import MaskPlan
from mim_mm.registry import MODELS


class Terms(NamedTuple):
    """Scalars of one step, by name: what is optimised, and what is only logged."""

    losses: dict[str, Tensor]
    metrics: dict[str, Tensor]


class Pretraining(BaseModel):
    """Base of the methods. One of them builds its modules and defines :meth:`loss`; everything else is here.

    A step, with ``ClockHook``: :meth:`begin_step`, ``forward(mode='loss')``, backward, and :meth:`end_step` after the
    optimizer's. Where nobody tells the clock, masks come from torch's global generator and teachers stand still.

    Subclasses set ``self.backbone`` (saved as ``backbone.*``, an mmpretrain module that loads elsewhere) and
    ``self.encoder``, what may be asked of it.

    Args:
        masker: config of a masking strategy; None for a method that hides nothing.
        data_preprocessor: config of mmengine's or mmpretrain's preprocessor; normalises uint8 batches on the device.

    Attributes:
        drops_tokens: whether the encoder leaves patches out, so that a plan may throw some away.
        batch_statistics: what the method takes from the batch as a whole, in a few words ('negatives of the batch');
            accumulated gradients would change it, so they are refused unless allowed. '' where images do not meet.
        clock: where training stands; None when nobody said so.
        mask_generator: what masks are drawn from; None is torch's global generator. :meth:`begin_step` makes it a
            function of (seed, step, rank), so that any step can be replayed.
        captured: the compiled ``loss_under_plan`` of methods that have one; ``CompileHook`` puts it here.
        teachers: what follows which part, see :mod:`mim_mm.algorithms.teacher`.
        seen_features: (B, D) of the last step, one row an image or view, which ``CollapseHook`` looks at; a method that
            may collapse puts them there, without gradient.
    """

    drops_tokens = False
    batch_statistics = ''
    backbone: nn.Module
    encoder: Encoder

    def __init__(
        self, masker: dict | None, data_preprocessor: dict | None = None, init_cfg: dict | list | None = None
    ) -> None:
        super().__init__(data_preprocessor, init_cfg)
        self.masker = None if masker is None else MODELS.build(masker)
        self.clock: Clock | None = None
        self.mask_generator: torch.Generator | None = None
        self.captured: Callable | None = None
        self.teachers: list[Teacher] = []
        self.seen_features: Tensor | None = None

    def forward(self, inputs, data_samples: list | None = None, mode: str = 'tensor'):
        """``mode='loss'`` for training, ``'tensor'`` for the features of the whole, unmasked image."""
        if mode == 'loss':
            return self.loss(inputs, data_samples)
        if mode == 'tensor':
            return self.features(inputs)
        raise ValueError(f"mode is '{mode}': pretraining has 'loss' and 'tensor'; evaluate the encoder by transfer")

    def loss(self, inputs, data_samples: list | None = None) -> dict[str, Tensor]:
        """The step of the method, from images to :meth:`outcome`; ``data_samples`` are ignored: nothing is labelled."""
        raise NotImplementedError(f'{type(self).__name__} is no method yet: define loss(inputs, data_samples=None)')

    def features(self, images: Tensor):
        """What the backbone makes of whole images."""
        return self.backbone(images)

    def outcome(self, terms: Terms, count_terms: Callable[[], Counts]) -> dict[str, Tensor]:
        """What ``forward(mode='loss')`` returns: losses, which mmengine adds up, and metrics, which it only logs.

        Scalars stay on the device. In distributed training values are those of this rank's images, and gradients those
        of the mean over all ranks' (:mod:`mim_mm.algorithms.global_mean`). Metrics are detached here, outside of what
        is captured: inductor (torch 2.14) merges a value that is returned twice, once detached, and the loss loses its
        gradient without a word.

        Args:
            count_terms: returns how many terms each loss is the mean of; one that it leaves out is averaged over the
                ranks as it is.

        Raises:
            ValueError: a loss without 'loss' in its name, which would not be optimised, or a metric with it.
        """
        wrong = [name for name in terms.losses if 'loss' not in name] + [n for n in terms.metrics if 'loss' in n]
        if wrong:
            raise ValueError(f'{wrong}: mmengine optimises exactly what has "loss" in its name; rename it, or move it')
        losses = over_ranks(terms.losses, count_terms, self.training)
        return {**losses, **{name: value.detach() for name, value in terms.metrics.items()}}

    # ---- masks

    @torch.no_grad()
    def plan(self, images: Tensor, generator: torch.Generator | None = None) -> MaskPlan:
        """The masks of a batch of images (B, C, H, W).

        The patch embedding is run for it, without gradient; a method that embeds anyway calls :meth:`draw_plan`.
        """
        return self.draw_plan(self.encoder.embed(images), generator, self.mask_units(images))

    def mask_units(self, images: Tensor) -> MaskUnits | None:
        """What of images (B, C, H, W) is hidden as one; None where that is a patch."""
        return None

    def draw_plan(
        self,
        tokens: Tensor,
        generator: torch.Generator | None = None,
        units: MaskUnits | None = None,
        attention: Tensor | None = None,
    ) -> MaskPlan:
        """What the masker hides of images with the embedded patches ``tokens`` (B, N, D); no gradient flows into it.

        A masker with ``needs_attention`` gets the attention of the class token too: ``attention`` (B, N) where the
        method has it at hand, else from a pass of the whole image through the backbone. Tokens and attention are
        averaged over each of the ``units``, if there are any.

        Raises:
            ValueError: the masker needs attention that the backbone does not have, or throws patches away that it
                cannot leave out.
        """
        tokens, options = tokens.detach(), {}
        encoder = getattr(self, 'encoder', None)  # a method of one's own may have none
        shape = (units.rows, units.columns) if units else encoder.grid_shape if encoder else (0, 0)
        seen = tokens if units is None else units.pool(tokens)
        if shape[0] != shape[1] and shape[0] * shape[1] == seen.shape[1]:
            set_grid(self.masker, shape)
        if needs_attention(self.masker):
            if attention is None:
                with torch.no_grad():
                    attention = self.attention(tokens)
            options['attention'] = attention if units is None else units.pool(attention[..., None])[..., 0]
        plan = self.masker(seen, generator, **options)
        if plan.num_thrown and not self.drops_tokens:
            raise ValueError(
                f'{type(self.masker).__name__} throws {plan.num_thrown} patches away, but this backbone keeps its '
                'whole sequence: set throw_ratio=0, or use MAE'
            )
        return plan

    def encode_copies(self, tokens: Tensor, plan: MaskPlan, method: str) -> Tensor:
        """What the encoder makes of the visible patches of all parts, (B*K, P+V, D); parts that see the same, once.

        Args:
            tokens: embedded images (B, N, D).
            method: name of the method, for the message.

        Raises:
            ValueError: parts or images differ in how many patches they see.
        """
        if not plan.uniform:
            raise ValueError(
                f'{method} needs the same number of visible patches in every image and part, and this masker varies '
                "it: use AdaptiveRatio(scope='per_batch') or a fixed ratio; MAE takes any"
            )
        if plan.same_visible:
            return self.encoder.encode(tokens, plan.visible[:, :1]).repeat_interleave(plan.num_parts, dim=0)
        return self.encoder.encode(tokens, plan.visible)

    def attention(self, tokens: Tensor) -> Tensor:
        """The class token's attention (B, N) to the patches ``tokens`` (B, N, D) of whole images.

        Raises:
            UnsupportedBackbone: the backbone shows none.
        """
        return self.encoder.cls_attention(tokens)

    # ---- the clock

    def train(self, mode: bool = True) -> Pretraining:
        """As torch's; teachers that stay in eval mode stay there."""
        super().train(mode)
        for teacher in self.teachers:
            teacher.set_mode(self)
        return self

    def set_clock(self, clock: Clock) -> None:
        """Say where training stands; the masker is told, too."""
        self.clock = clock
        set_clock(self.masker, clock)

    def begin_step(self, clock: Clock) -> None:
        """Before every iteration: the masks of this step follow from the clock alone."""
        self.set_clock(clock)
        if self.mask_generator is None:
            self.mask_generator = torch.Generator(device=next(self.parameters()).device)
        self.mask_generator.manual_seed(mask_seed(clock.seed, clock.step, get_rank()) % 2**63)
        for teacher in self.teachers:
            teacher.begin(self)

    def end_step(self) -> None:
        """After every optimizer step."""
        for teacher in self.teachers:
            if teacher.after_optimizer:
                teacher.update(self, self.clock)

    def renew_teachers(self) -> None:
        """Copy what teachers follow; the last line of the ``init_weights`` of a method that has any."""
        for teacher in self.teachers:
            teacher.renew(self)

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args) -> None:
        for teacher in self.teachers:
            teacher.look_for(state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *args)
