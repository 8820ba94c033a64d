"""DINO: Emerging Properties in Self-Supervised Vision Transformers (Caron et al., ICCV 2021, arXiv 2104.14294)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from mim_mm.algorithms.base import Terms
from mim_mm.algorithms.distillation import COLD, MOMENTUM, NUM_GLOBALS, SelfDistillation
from mim_mm.registry import MODELS


@MODELS.register_module()
class DINO(SelfDistillation):
    """The class token of every view learns what the teacher's says of the two large ones. Nothing is masked.

    ``loss_cls``: the mean over the pairs of a large view q and another view v of
    ``-sum_K softmax((t_q - c) / T_t) log softmax(s_v / T_s)``, the mean over the batch, with logits t and s of teacher
    and student and the centre c, which follows t after the loss.

    Args:
        backbone, head, momentum, teacher_temp, ...: see :class:`SelfDistillation`.
    """

    def __init__(
        self,
        backbone: dict,
        head: dict,
        momentum: float | dict | Sequence = MOMENTUM,
        teacher_temp: Mapping = COLD,
        **kwargs,
    ) -> None:
        super().__init__(backbone, None, head, momentum, teacher_temp, **kwargs)

    def loss(self, inputs: Sequence[Tensor], data_samples: list | None = None) -> dict[str, Tensor]:
        """``loss_cls`` of one step and what is watched.

        Args:
            inputs: normalised views, each (B, C, h, w), two large ones first.
            data_samples: ignored; unlabelled images have none.
        """
        views = self.views(inputs)
        with torch.no_grad():
            whole = torch.cat(views[:NUM_GLOBALS])
            features = self.teacher_encoder.encode_tokens(self.teacher_encoder.embed(whole))[0][:, 0]
            taught = self.teacher['head'](features)
        said = self.head(self.class_tokens(views))
        with torch.autocast(said.device.type, enabled=False):
            target = self.centre.sharpened(taught, self.temperature(self.clock))
            value = self.class_loss(said, target, len(views))
            metrics = self.watched(target, features)
        if self.training:
            self.centre.follow(taught)
        return self.outcome(Terms({'loss_cls': value}, metrics), lambda: {'loss_cls': len(views[0])})
