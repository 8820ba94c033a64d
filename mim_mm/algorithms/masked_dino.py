"""DINO with masked large views: what can be said of MST without its unpublished settings. Not the published method.

MST: Masked Self-Supervised Transformer for Visual Representation (Li et al., NeurIPS 2021, arXiv 2106.05656). Of it no
code is known to us, nor the rank below which patches are candidates, the probability with which one is masked, the
decoder, and the weight of the restoring loss.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from mim_mm.algorithms.base import Terms
from mim_mm.algorithms.distillation import COLD, MOMENTUM, NUM_GLOBALS, SelfDistillation
from mim_mm.registry import MODELS


@MODELS.register_module()
class MaskedDINO(SelfDistillation):
    """DINO whose student sees large views with mask tokens and restores them. **Not the published method** (MST).

    With ``AttMask(variant='low')`` the patches are drawn among those that the teacher's class token attends to least.
    What the description of MST leaves open has no default here and must be stated; figures are not those of MST.

    * ``loss_cls``: as :class:`mim_mm.algorithms.dino.DINO`; the large views of the student are masked.
    * ``loss_restore``: ``restore_weight`` times the mean absolute difference of the normalised large views and what the
      decoder makes of the student's patch tokens, over all pixels, hidden or not.

    Hidden patches become ``mask_token``, which starts at 0, in front of the positions.

    Args:
        backbone, head, momentum, teacher_temp, ...: see :class:`SelfDistillation`.
        masker: ``AttMask(variant='low', ratio=..., hide_prob=...)``, both of your own choice; any other of one part.
        decoder: config of a module from maps of tokens (B, D, h, w) to images (B, C, H, W), such as
            ``mmpretrain.SimMIMLinearDecoder``.
        restore_weight: of the restoring loss, of your own choice.

    Raises:
        ValueError: ``restore_weight`` is None or negative.
    """

    def __init__(
        self,
        backbone: dict,
        masker: dict,
        head: dict,
        decoder: dict,
        restore_weight: float,
        momentum: float | dict | Sequence = MOMENTUM,
        teacher_temp: Mapping = COLD,
        **kwargs,
    ) -> None:
        super().__init__(backbone, masker, head, momentum, teacher_temp, **kwargs)
        if restore_weight is None or restore_weight < 0:
            raise ValueError(
                f'restore_weight is {restore_weight}: state a number that is not negative, of your own choice; that of '
                'MST is not published'
            )
        self.mask_token = nn.Parameter(torch.zeros(1, self.encoder.width))
        self.decoder = MODELS.build(decoder)
        self.restore_weight = restore_weight

    def loss(self, inputs: Sequence[Tensor], data_samples: list | None = None) -> dict[str, Tensor]:
        """``loss_cls`` and ``loss_restore`` of one step and what is watched.

        Args:
            inputs: normalised views, each (B, C, h, w), two large ones first.
            data_samples: ignored; unlabelled images have none.
        """
        views = self.views(inputs)
        whole = torch.cat(views[:NUM_GLOBALS])
        with torch.no_grad():
            taught, attention = self.teach(whole)
            cls_taught = self.teacher['head'](taught[:, 0])
        _, seen = self.see_masked(whole, attention)
        classes = [seen[:, 0]] + ([self.class_tokens(views[NUM_GLOBALS:])] if len(views) > NUM_GLOBALS else [])
        said = self.head(torch.cat(classes))
        rows, columns = self.encoder.grid.of_image(whole)
        restored = self.decoder(seen[:, 1:].transpose(1, 2).unflatten(2, (rows, columns)))
        with torch.autocast(whole.device.type, enabled=False):
            target = self.centre.sharpened(cls_taught, self.temperature(self.clock))
            losses = dict(
                loss_cls=self.class_loss(said, target, len(views)),
                loss_restore=self.restore_weight * (restored - whole).abs().mean(),
            )
            metrics = self.watched(target, taught[:, 0])
        if self.training:
            self.centre.follow(cls_taught)
        return self.outcome(Terms(losses, metrics), lambda: dict.fromkeys(losses, len(views[0])))
