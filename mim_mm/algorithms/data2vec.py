"""data2vec: A General Framework for Self-supervised Learning in Speech, Vision and Language (Baevski et al., ICML 2022,
arXiv 2202.03555): images, for any mask plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mim_mm.algorithms.base import Terms
from mim_mm.algorithms.masked_input import MaskedInput
from mim_mm.algorithms.teacher import Teacher, frozen_copy
from mim_mm.encoders import encoder_of
from mim_mm.encoders.blocks import known_blocks
from mim_mm.encoders.initial import cut_normal_
from mim_mm.losses import at_least_fp32
from mim_mm.masking import MaskPlan
from mim_mm.masking.plan import host_index, ragged_places
from mim_mm.registry import MODELS


@MODELS.register_module(name='data2vec')
class Data2Vec(MaskedInput):
    """Mask tokens at the input; of hidden patches predict the mean of what a teacher's last blocks put out.

    ``loss = smooth L1 (beta) of a linear layer on the student's last tokens``, a mean over all values of all hidden
    patches. The target of a patch: the outputs of ``target_blocks`` on the whole image, before the final norm, each
    normalised over its channels, their mean, normalised again (variance floor 1e-5, no scale). The teacher is an
    average of the student's encoder that follows every optimizer step, reads in eval mode (no drop path, no dropout of
    attention) and in fp32 whatever the student runs in. (The release averages the linear layer too, which no target
    reads.)

    Teacher and student are saved as ``teacher.*`` and ``backbone.*``; the release fine-tunes the student.

    Gradients may be accumulated: no loss looks from one image at another, and the teacher follows optimizer steps.

    Args:
        backbone: config of ``mmpretrain.BEiTPretrainViT``, with its shared biases of relative positions as released.
            Dropout of attention: ``layer_cfgs=dict(attn_cfg=dict(attn_drop_rate=0.05))``; the class has no other way.
        masker: ``BlockMasking(ratio=120 / 196, fill='none')`` in the release.
        target_blocks: which blocks, from 0 and ascending; negative ones from the end.
        momentum: of the teacher, see :func:`mim_mm.algorithms.teacher.build_momentum`.
        beta: of the smooth L1.
        data_preprocessor: as :class:`MaskedInput`; what is hidden are single patches.

    Raises:
        ValueError: blocks that do not exist, none, or out of order; beta not above 0.
    """

    def __init__(
        self,
        backbone: dict,
        masker: dict,
        target_blocks: Sequence[int] = (-6, -5, -4, -3, -2, -1),
        momentum: float | Mapping | Sequence = 0.9998,
        beta: float = 2.0,
        data_preprocessor: dict | None = None,
        init_cfg: dict | list | None = None,
    ) -> None:
        super().__init__(backbone, masker, None, data_preprocessor, init_cfg)
        blocks = known_blocks('target_blocks', target_blocks, self.encoder.depth)
        if beta <= 0:
            raise ValueError(f'beta is {beta}: where the smooth L1 turns from squares to lines, above 0; 2.0 released')
        self.target_blocks, self.beta = blocks, beta
        self.head = nn.Linear(self.encoder.width, self.encoder.width)
        self.teacher = frozen_copy(self.backbone)
        self.teachers = [Teacher({'backbone': 'teacher'}, momentum, mode='eval')]

    def init_weights(self) -> None:
        """As the release; the linear layer cut normal, its bias zero. The teacher copies the student."""
        super().init_weights()
        cut_normal_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self.renew_teachers()

    def loss(self, inputs: Tensor, data_samples: list | None = None) -> dict[str, Tensor]:
        """``loss_features`` of one step and what is watched.

        Args:
            inputs: normalised images (B, C, H, W).
            data_samples: ignored; unlabelled images have none.

        Returns:
            ``loss_features``; ``target_std`` and ``predicted_std``, how far targets and predictions at hidden patches
            spread in a channel over the batch: both near 0 is a collapse.
        """
        plan = self.plan(inputs, self.mask_generator)
        features = self.teach(inputs)
        mask, images, wanted = self.masked_parts(plan, inputs, features)
        grid = self.units_of(*inputs.shape[-2:])
        tokens = self.encoder.encode_masked(images, grid.expand(mask))[:, self.encoder.num_prefix :]
        hidden = hidden_places(plan)
        said = self.head(tokens.flatten(0, 1)[hidden])
        with torch.autocast(inputs.device.type, enabled=False):
            said, wanted = at_least_fp32(said), wanted.flatten(0, 1)[hidden]
            loss = F.smooth_l1_loss(said, wanted, beta=self.beta)
        metrics = dict(target_std=wanted.std(dim=0).mean(), predicted_std=said.std(dim=0).mean())
        self.seen_features = features.mean(dim=1)
        return self.outcome(Terms({'loss_features': loss}, metrics), lambda: {'loss_features': len(hidden)})

    @torch.no_grad()
    def teach(self, images: Tensor) -> Tensor:
        """Targets (B, N, D) of all patches of whole images."""
        with torch.autocast(images.device.type, enabled=False):
            outputs = encoder_of(self.teacher).read(at_least_fp32(images), self.target_blocks, norm=False)
            normed = [F.layer_norm(x, x.shape[-1:]) for x in (y[:, self.encoder.num_prefix :] for y in outputs)]
            mean = torch.stack(normed).mean(dim=0)
            return F.layer_norm(mean, mean.shape[-1:])


def hidden_places(plan: MaskPlan) -> Tensor:
    """Long (H,), every hidden patch of the R parts that exist as an index into (R, N) flattened.

    From what the host knows of the plan; a mask as index would make it wait for the device.
    """
    rows, visible = plan.rows()
    patches, device = plan.num_patches, plan.order.device
    part, place = ragged_places([patches - count for count in visible], device)
    order = plan.order.flatten(0, 1)[host_index(rows, device)]
    return part * patches + order[part, host_index(visible, device)[part] + place]
