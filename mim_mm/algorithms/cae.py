"""CAE: Context Autoencoder for Self-Supervised Representation Learning (Chen et al., IJCV 2023, arXiv 2202.03026)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mim_mm.algorithms.base import Terms
from mim_mm.algorithms.teacher import Teacher, frozen_copy
from mim_mm.algorithms.visual_tokens import VisualTokens
from mim_mm.encoders import encoder_of
from mim_mm.encoders.grid import gather_parts
from mim_mm.encoders.initial import cut_normal_
from mim_mm.encoders.positions import init_linears
from mim_mm.masking import MaskPlan
from mim_mm.registry import MODELS


@MODELS.register_module()
class CAE(VisualTokens):
    """The encoder sees visible patches; mask tokens enter in a regressor that predicts the latents of the hidden ones.

    ``loss = CE(visual tokens) + align_weight * MSE(regressed latents, latents of the hidden patches)``; the second
    target comes from a copy of the encoder that sees the hidden patches only. As in the first release (lxtGH/CAE), the
    copy is renewed inside the step after its use, so it is one step behind; in the second (Atten4Vis/CAE) it shares the
    encoder's storage and is never behind. Encoder, regressor, decoder and losses are mmpretrain's
    (``CAEPretrainViT``, ``CAENeck``, ``CAEHead``, ``CAELoss``).

    The encoder drops patches with one index for the whole batch: every image must hide the same number.

    Args:
        backbone: ``mmpretrain.CAEPretrainViT``.
        masker: ``BlockMasking`` with half of the patches in the paper.
        neck: options of ``CAENeck`` (depths, heads, ``num_classes`` for the vocabulary); width comes from the backbone.
        align_weight: 2 in the paper.
        **kwargs: ``tokenizer``, ``tokenizer_checkpoint`` and the others of :class:`VisualTokens`.
    """

    needs = ('encode_visible',)

    def __init__(self, backbone: dict, masker: dict, neck: dict, align_weight: float = 2.0, **kwargs) -> None:
        super().__init__(backbone, masker, **kwargs)
        _, channels = self.encoder.output
        self.neck = MODELS.build(
            dict(type='mmpretrain.CAENeck', embed_dims=channels, layer_scale_init_value=0.1) | neck
        )
        for block in self.neck.decoders:  # mmpretrain's BEiT blocks drop the path of their MLP twice, the release once
            block.ffn.dropout_layer = nn.Identity()
        self.head = MODELS.build(
            dict(type='mmpretrain.CAEHead', loss=dict(type='mmpretrain.CAELoss', lambd=align_weight))
        )
        self.teacher = frozen_copy(self.backbone)
        self.teachers = [Teacher({'backbone': 'teacher'}, momentum=0.0, buffers='own', after_optimizer=False)]

    def init_weights(self) -> None:
        """As the release: Xavier linears, also the head, mask token cut normal; the teacher copies the encoder."""
        super().init_weights()
        init_linears(self.neck)
        cut_normal_(self.neck.mask_token)
        self.renew_teachers()

    def loss(self, inputs: list[Tensor], data_samples: list | None = None) -> dict[str, Tensor]:
        """``loss_tokens`` and ``loss_align`` (weighted); ``inputs`` as in :meth:`VisualTokens.token_logits`."""
        wanted = self.token_logits(inputs)
        plan = self.plan(inputs[0], self.mask_generator)
        self.neck.mask_token_num = self.count_hidden(plan)
        _, images, wanted = self.masked_parts(plan, inputs[0], wanted)
        # In the order of the image; masks would have to be counted on the device.
        visible, hidden = (places.flatten(0, 1).sort(dim=1).values for places in (plan.visible, plan.hidden))
        latent = self.encoder.encode_visible(images, visible)[:, 1:]
        with torch.no_grad():
            latent_target = encoder_of(self.teacher).encode_visible(images, hidden)[:, 1:]
            self.teachers[0].update(self, self.clock)
        positions = self.backbone.pos_embed[:, 1:].expand(len(images), -1, -1)
        asked, shown = (gather_parts(positions, places[:, None]) for places in (hidden, visible))
        logits, latent_pred = self.neck(latent, asked, shown)
        said = wanted.argmax(dim=1).flatten(1).gather(1, hidden)
        with torch.autocast(images.device.type, enabled=False):
            tokens, align = self.head.loss_module(
                logits.float().flatten(0, 1), said.flatten(), latent_pred.float(), latent_target.float()
            )
        losses = {'loss_tokens': tokens, 'loss_align': align}
        return self.outcome(Terms(losses, {}), lambda: dict.fromkeys(losses, hidden.numel()))

    @staticmethod
    def count_hidden(plan: MaskPlan) -> int:
        """Hidden patches of every part of every image.

        Raises:
            ValueError: if they differ.
        """
        if not plan.uniform:
            raise ValueError(
                "CAE's encoder needs the same number of hidden patches in every image and part, and this masker varies "
                "it: use AdaptiveRatio(scope='per_batch') or a fixed ratio; SimMIM and BEiT take any"
            )
        return plan.num_patches - plan.num_visible[0]
