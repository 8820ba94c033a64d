"""What DINO, iBOT and MaskedDINO share: student and teacher of backbone and head, centres, temperatures, masked views,
and what is watched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from types import MappingProxyType

import torch
from mmengine.dist import all_reduce
from torch import Tensor, nn

from mim_mm.algorithms.base import Pretraining
from mim_mm.algorithms.teacher import Teacher, frozen_copy
from mim_mm.clock import Clock
from mim_mm.decoders.dino_head import DINOHead
from mim_mm.encoders import build_backbone, encoder_of
from mim_mm.encoders.initial import init_dino
from mim_mm.encoders.positions import plain_drop_path
from mim_mm.masking.base import needs_attention
from mim_mm.masking.plan import MaskPlan

NUM_GLOBALS = 2  # views that the teacher sees
# What the releases have where a recipe says nothing.
MOMENTUM = MappingProxyType(dict(start=0.996, end=1.0))
COLD = MappingProxyType(dict(start=0.04, end=0.04, epochs=0))
WARMING = MappingProxyType(dict(start=0.04, end=0.07, epochs=30))


def widen(x: Tensor) -> Tensor:
    """At least fp32."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def cross_entropy(target: Tensor, log_probs: Tensor) -> Tensor:
    """``-sum_K target * log_probs``, both (..., K)."""
    return -(target * log_probs).sum(dim=-1)


def entropy_of(probs: Tensor) -> Tensor:
    """In nats, of probabilities (..., K). ``torch.special.entr`` compiles itself with NVRTC on first use on a GPU."""
    return -torch.xlogy(probs, probs).sum(dim=-1)


@dataclass(frozen=True)
class TeacherTemperature:
    """Linear from ``start`` in epoch 0 to ``end`` in the last of ``epochs`` epochs, and then constant."""

    start: float
    end: float
    epochs: int

    def __post_init__(self) -> None:
        if not 0 < self.start <= self.end or self.epochs < 0:
            raise ValueError(
                f'teacher_temp is start={self.start}, end={self.end}, epochs={self.epochs}: need 0 < start <= end and '
                'epochs >= 0, e.g. dict(start=0.04, end=0.07, epochs=30)'
            )

    def __call__(self, clock: Clock | None) -> float:
        """At a moment; without a clock that of the first epoch."""
        epoch = 0 if clock is None else clock.epoch
        if self.epochs and epoch is None:
            raise ValueError(
                f'teacher_temp warms up over {self.epochs} epochs, and the training loader has no length: give a data '
                'set with a length, or epochs=0'
            )
        if not self.epochs or epoch >= self.epochs:
            return self.end
        return self.start + (self.end - self.start) * epoch / max(1, self.epochs - 1)


class Centre(nn.Module):
    """The running mean of a teacher's logits, over all ranks, that is taken off them against collapse.

    ``mean <- momentum * mean + (1 - momentum) * mean of the batch``, once a step, after the loss.
    """

    def __init__(self, dims: int, momentum: float) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer('mean', torch.zeros(dims))

    def sharpened(self, logits: Tensor, temperature: float) -> Tensor:
        """Probabilities of the teacher."""
        return ((widen(logits) - self.mean) / temperature).softmax(dim=-1)

    @torch.no_grad()
    def follow(self, logits: Tensor, each: int = 1) -> None:
        """Follow the mean of logits (..., K) of this and all other ranks; a collective.

        Args:
            logits: of this rank, or means of ``each`` of them.
        """
        flat = logits.flatten(0, -2)
        total = torch.cat([flat.sum(dim=0, dtype=self.mean.dtype), self.mean.new_full((1,), len(flat))]) * each
        all_reduce(total)
        self.mean.mul_(self.momentum).add_(total[:-1] / total[-1], alpha=1 - self.momentum)


class SelfDistillation(Pretraining):
    """A student learns to say of views what its own average, the teacher, says of others. DINO and iBOT derive from it.

    ``backbone`` and ``head`` are the student's, ``teacher.backbone`` and ``teacher.head`` follow them. Evaluations of
    the releases read the teacher: ``prefix='teacher.backbone.'``.

    ``inputs`` of :meth:`loss` is a list of normalised views (B, C, h, w), two large ones first (``mim_mm.MultiCrop``).

    Args:
        backbone: config of ``mmpretrain.VisionTransformer``; the teacher is the same without drop path.
        masker: config of a masking strategy, or None.
        head: options of :class:`mim_mm.decoders.dino_head.DINOHead`.
        momentum: of the teacher, see :func:`mim_mm.algorithms.teacher.build_momentum`.
        teacher_temp: ``start``, ``end`` and ``epochs`` of :class:`TeacherTemperature`.
        student_temp: constant.
        centre_momentum: of the centres.
        data_preprocessor: as :class:`Pretraining`; ``mmpretrain.SelfSupDataPreprocessor`` takes lists.
    """

    batch_statistics = 'centres that are means over the batch'

    def __init__(
        self,
        backbone: dict,
        masker: dict | None,
        head: dict,
        momentum: float | dict | Sequence,
        teacher_temp: Mapping,
        student_temp: float = 0.1,
        centre_momentum: float = 0.9,
        data_preprocessor: dict | None = None,
        init_cfg: dict | list | None = None,
    ) -> None:
        super().__init__(masker, data_preprocessor, init_cfg)
        self.backbone = build_backbone(backbone, 'encode_tokens', 'positions')
        plain_drop_path(self.backbone)
        self.encoder = encoder_of(self.backbone)
        if not self.encoder.num_prefix:
            raise ValueError('the backbone has no class token (with_cls_token=False), which this method distils')
        init_dino(self.backbone)
        self.head = DINOHead(self.encoder.width, **head)
        self.teacher = nn.ModuleDict(
            dict(backbone=frozen_copy(self.backbone, drop_path=False), head=frozen_copy(self.head))
        )
        self.teacher_encoder = encoder_of(self.teacher['backbone'])
        self.encoder.resample_by_scale = self.teacher_encoder.resample_by_scale = True
        self.teachers = [Teacher({name: f'teacher.{name}' for name in self.teacher}, momentum)]
        self.temperature, self.student_temp = TeacherTemperature(**teacher_temp), student_temp
        self.centre = Centre(head['out_dims'], centre_momentum)

    def init_weights(self) -> None:
        """As DINO's release; a backbone with an ``init_cfg`` of its own (a checkpoint to go on from) as that says."""
        super().init_weights()
        if self.backbone.init_cfg is None:
            init_dino(self.backbone)
        self.renew_teachers()

    @property
    def num_prototypes(self) -> int:
        """K of the class token, which ``CollapseHook`` measures entropies against."""
        return len(self.centre.mean)

    def views(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """The views of a batch.

        Raises:
            ValueError: they are not a list of two or more.
        """
        if isinstance(inputs, Tensor) or len(inputs) < NUM_GLOBALS or inputs[0].shape != inputs[1].shape:
            shapes = tuple(inputs.shape) if isinstance(inputs, Tensor) else [tuple(view.shape) for view in inputs]
            raise ValueError(
                f'inputs has shape {shapes}: {type(self).__name__} learns from several views of an image, two large '
                'ones of one size first; give a pipeline with mim_mm.MultiCrop and default_collate '
                '(configs/_base_/datasets/imagenet_multi_crop.py)'
            )
        return list(inputs)

    def class_tokens(self, views: Sequence[Tensor]) -> Tensor:
        """What the student makes of views in their order, (V*B, D); those of one size run as one batch."""
        found = []
        for _, group in groupby(views, key=lambda view: view.shape[-2:]):
            tokens, _ = self.encoder.encode_tokens(self.encoder.embed(torch.cat(list(group))))
            found.append(tokens[:, 0])
        return torch.cat(found)

    def teach(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """The teacher's tokens (B, 1+N, D) of whole images and, where the masker needs it, its class token's attention
        (B, N) from the same pass."""
        tokens = self.teacher_encoder.embed(images)
        return self.teacher_encoder.encode_tokens(tokens, attention=needs_attention(self.masker))

    def see_masked(self, images: Tensor, attention: Tensor | None) -> tuple[MaskPlan, Tensor]:
        """What is hidden of images (B, C, H, W), and the student's tokens (B, 1+N, D) with ``mask_token`` in its place.

        Args:
            attention: (B, N), the teacher's, for maskers that follow it.

        Raises:
            ValueError: a masker of several parts.
        """
        tokens = self.encoder.embed(images)
        plan = self.draw_plan(tokens, self.mask_generator, attention=attention)
        if plan.num_parts != 1:
            raise ValueError(
                f'{type(self.masker).__name__} makes {plan.num_parts} parts of a view, and {type(self).__name__} masks '
                'each view once: use a masker of one part, e.g. BlockMasking'
            )
        masked = self.mask_token + self.encoder.positions(images.shape[-2:])
        return plan, self.encoder.encode_tokens(torch.where(plan.mask[:, 0, :, None], masked, tokens))[0]

    @torch.no_grad()
    def plan(self, images: Tensor, generator: torch.Generator | None = None) -> MaskPlan:
        """The masks of a batch of large views (B, C, H, W)."""
        attention = self.teach(images)[1] if needs_attention(self.masker) else None
        return self.draw_plan(self.encoder.embed(images), generator, attention=attention)

    def class_loss(self, logits: Tensor, target: Tensor, num_views: int) -> Tensor:
        """Mean cross entropy over all pairs of a view of the teacher and another one of the student.

        Args:
            logits: (V*B, K), the student's of all views, before its temperature.
            target: (2*B, K), probabilities of the teacher.
        """
        log_probs = (widen(logits) / self.student_temp).log_softmax(dim=-1).chunk(num_views)
        terms = [
            cross_entropy(wanted, said).mean()
            for q, wanted in enumerate(target.chunk(NUM_GLOBALS))
            for v, said in enumerate(log_probs)
            if v != q
        ]
        return sum(terms) / len(terms)

    @torch.no_grad()
    def watched(self, target: Tensor, features: Tensor) -> dict[str, Tensor]:
        """What says early that the method collapses: metrics of a step, on the device.

        ``teacher_entropy`` of the class token in nats: log K when the teacher says nothing, 0 when it always names one
        prototype with certainty. ``teacher_spread``, the entropy of its mean over the batch: near 0 when it names the
        same one for all images. ``centre_norm``, length of the centre.

        Args:
            target: (2*B, K), probabilities of the teacher.
            features: (2*B, D), its class tokens.
        """
        self.seen_features = features.detach()
        entropy = entropy_of(target).mean()
        spread = entropy_of(target.mean(dim=0))
        return dict(teacher_entropy=entropy, teacher_spread=spread, centre_norm=self.centre.mean.norm())
