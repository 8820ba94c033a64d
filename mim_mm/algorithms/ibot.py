"""iBOT: Image BERT Pre-Training with Online Tokenizer (Zhou et al., ICLR 2022, arXiv 2111.07832), for any mask plan.

With ``AttMask`` as masker it is AttMask (Kakogeorgiou et al., ECCV 2022, arXiv 2203.12719), with ``SalienceMasking``
SBAM's masks on iBOT (Choi et al., ECCV 2024, arXiv 2404.08327).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from mim_mm.algorithms.base import Terms
from mim_mm.algorithms.distillation import (
    MOMENTUM,
    NUM_GLOBALS,
    WARMING,
    Centre,
    SelfDistillation,
    TeacherTemperature,
    cross_entropy,
    widen,
)
from mim_mm.masking.plan import MaskPlan, to_device
from mim_mm.registry import MODELS


@MODELS.register_module(name='iBOT')
class IBOT(SelfDistillation):
    """DINO's loss on class tokens, and the same on patches that the student does not see and the teacher does.

    The two large views are masked, each on its own; the small ones and all of the teacher's are whole. A step in its
    order: teacher, masks, student of the large views, student of the small ones, losses, centres; after the optimizer
    the teacher follows.

    * ``loss_cls``: as :class:`mim_mm.algorithms.dino.DINO`.
    * ``loss_patches``: of each large view the mean over its hidden patches of the cross entropy between teacher and
      student at the same place, then the mean over all large views: one that hides nothing adds 0 and counts.

    Hidden patches become ``mask_token``, which starts at 0, in front of the positions. The patches' centre follows all
    patches, hidden or not. Logits of both are computed where they enter a loss, which is the same.

    Args:
        backbone, head, ...: see :class:`SelfDistillation`. ``head`` with ``patch_out_dims``: patches have prototypes of
            their own, in student and teacher alike. (The release's defaults, unlike its recipes, give the student two
            sets and the teacher one; that is not offered.)
        masker: what the large views hide, see :class:`mim_mm.masking.DrawnRatio`. It sees the student's patch
            embeddings with positions, and if it follows attention, the teacher's, of the same pass.
        patch_temp: of the teacher for patches, as ``teacher_temp``.
        cls_weight, patch_weight: of the losses.
    """

    def __init__(
        self,
        backbone: dict,
        masker: dict,
        head: dict,
        momentum: float | dict | Sequence = MOMENTUM,
        teacher_temp: Mapping = WARMING,
        patch_temp: Mapping = WARMING,
        cls_weight: float = 1.0,
        patch_weight: float = 1.0,
        centre_momentum: float = 0.9,
        **kwargs,
    ) -> None:
        super().__init__(backbone, masker, head, momentum, teacher_temp, centre_momentum=centre_momentum, **kwargs)
        self.mask_token = nn.Parameter(torch.zeros(1, self.encoder.width))
        self.patch_temperature = TeacherTemperature(**patch_temp)
        self.patch_centre = Centre(head.get('patch_out_dims') or head['out_dims'], centre_momentum)
        self.weights = cls_weight, patch_weight

    def loss(self, inputs: Sequence[Tensor], data_samples: list | None = None) -> dict[str, Tensor]:
        """``loss_cls`` and ``loss_patches`` of one step and what is watched.

        Args:
            inputs: normalised views, each (B, C, h, w), two large ones first.
            data_samples: ignored; unlabelled images have none.
        """
        views = self.views(inputs)
        whole = torch.cat(views[:NUM_GLOBALS])
        with torch.no_grad():
            taught, attention = self.teach(whole)
            cls_taught = self.teacher['head'](taught[:, 0])
            projected = self.teacher['head'].project(taught[:, 1:]).flatten(0, 1)

        plan, seen = self.see_masked(whole, attention)
        hidden = plan.hidden_index()
        with torch.no_grad():
            patches_taught = self.teacher['head'].patch_prototypes(projected[hidden])
        patches_said = self.head.patches(seen[:, 1:].flatten(0, 1)[hidden])
        classes = [seen[:, 0]] + ([self.class_tokens(views[NUM_GLOBALS:])] if len(views) > NUM_GLOBALS else [])
        cls_said = self.head(torch.cat(classes))

        with torch.autocast(whole.device.type, enabled=False):
            target = self.centre.sharpened(cls_taught, self.temperature(self.clock))
            losses = dict(
                loss_cls=self.weights[0] * self.class_loss(cls_said, target, len(views)),
                loss_patches=self.weights[1] * self.patch_loss(patches_said, patches_taught, plan),
            )
            metrics = self.watched(target, taught[:, 0])
            metrics.update(patch_centre_norm=self.patch_centre.mean.norm())
        if self.training:
            self.centre.follow(cls_taught)
            self.follow_patches(projected)
        return self.outcome(Terms(losses, metrics), lambda: dict.fromkeys(losses, len(views[0])))

    @torch.no_grad()
    def follow_patches(self, projected: Tensor) -> None:
        """The patches' centre follows all of them, (2*B*N, bottleneck) in front of the prototypes. These are linear, so
        the mean is taken before them: logits of patches that nobody hides would be the largest tensor of the step."""
        with torch.autocast(projected.device.type, enabled=False):
            mean = projected.mean(dim=0, keepdim=True, dtype=self.patch_centre.mean.dtype)
            self.patch_centre.follow(self.teacher['head'].patch_prototypes(mean), each=len(projected))

    def patch_loss(self, said: Tensor, taught: Tensor, plan: MaskPlan) -> Tensor:
        """See :class:`IBOT`.

        Args:
            said: (H, K), logits of the student at the hidden patches.
            taught: (H, K), those of the teacher.
            plan: what is hidden of 2*B views.
        """
        target = self.patch_centre.sharpened(taught, self.patch_temperature(self.clock))
        errors = cross_entropy(target, (widen(said) / self.student_temp).log_softmax(dim=-1))
        counts = plan.hidden_per_image()
        weights = (1.0 / counts.clamp(min=1).double() / len(counts)).repeat_interleave(counts)
        return (errors * to_device(weights.to(errors.dtype), errors.device)).sum()
