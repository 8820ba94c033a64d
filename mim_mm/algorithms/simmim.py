"""SimMIM: A Simple Framework for Masked Image Modeling (Xie et al., CVPR 2022, arXiv 2111.09886), for any mask plan."""

from __future__ import annotations

import torch
from torch import Tensor

from mim_mm.algorithms.base import Terms
from mim_mm.algorithms.masked_input import MaskedInput
from mim_mm.registry import MODELS
from mim_mm.targets import patchify


@MODELS.register_module()
class SimMIM(MaskedInput):
    """Mask tokens at the input, one linear layer on the output, L1 on the hidden pixels.

    ``loss = sum |x - x^| m / (sum m * C)`` with m = 1 at hidden pixels (each counted once, for C channels) and x the
    normalised image, not standardised per patch. The sums run over the batch, and in effect over those of all ranks
    (:mod:`mim_mm.algorithms.global_mean`), so with per-image ratios every hidden pixel counts the same. (The release
    adds 1e-5 to ``sum m``, at least 256 here.)

    Head and decoder are mmpretrain's, and parameters have the names of its ``SimMIM``.

    Args:
        backbone: ``mmpretrain.SimMIMSwinTransformer`` or ``mmpretrain.BEiTPretrainViT``, the ViT of the paper.
        masker: ``RandomMasking(ratio=0.6)`` in the paper.
        mask_unit: side of the hidden squares in pixels, 32 in the paper.
        **kwargs: as :class:`MaskedInput`.
    """

    norm_pix = False

    def __init__(self, backbone: dict, masker: dict, mask_unit: int = 32, **kwargs) -> None:
        super().__init__(backbone, masker, mask_unit, **kwargs)
        if self.grid.in_channels != 3:
            raise ValueError(f'the backbone takes {self.grid.in_channels} channels: SimMIMLinearDecoder predicts 3')
        stride, channels = self.encoder.output
        self.neck = MODELS.build(
            dict(type='mmpretrain.SimMIMLinearDecoder', in_channels=channels, encoder_stride=stride)
        )
        penalty = dict(type='mmpretrain.PixelReconstructionLoss', criterion='L1', channel=self.grid.in_channels)
        self.head = MODELS.build(dict(type='mmpretrain.SimMIMHead', patch_size=self.mask_unit, loss=penalty))

    def loss(self, inputs: Tensor, data_samples: list | None = None) -> dict[str, Tensor]:
        """``loss_pixels`` of one step.

        Args:
            inputs: normalised images (B, C, H, W).
            data_samples: ignored; unlabelled images have none.
        """
        plan = self.plan(inputs, self.mask_generator)
        mask, images = self.masked_parts(plan, inputs)
        pred = self.predict(images, mask)
        units = self.units_of(*inputs.shape[-2:])
        with torch.autocast(inputs.device.type, enabled=False):
            value = self.head.loss(pred.float(), images.float(), mask.view(-1, units.rows, units.columns).float())
        return self.outcome(Terms({'loss_pixels': value}, {}), lambda: {'loss_pixels': mask.sum()})

    def predict(self, images: Tensor, mask: Tensor) -> Tensor:
        """The image (B, C, H, W) that the model sees behind a mask over units, bool (B, N)."""
        units = self.units_of(*images.shape[-2:])
        patches = self.encoder.encode_masked(images, units.expand(mask))[:, self.grid.num_prefix :]
        rows, columns = (side // self.encoder.output[0] for side in images.shape[-2:])
        return self.neck(patches.transpose(1, 2).unflatten(2, (rows, columns)))

    @torch.no_grad()
    def reconstruct(self, inputs: Tensor, generator: torch.Generator | None = None) -> dict:
        """Predictions in unit order, for figures; the dict of :meth:`mim_mm.algorithms.mae.MAE.reconstruct`."""
        plan = self.plan(inputs, generator)
        mask, images = self.masked_parts(plan, inputs)
        target = patchify(inputs.float(), self.mask_unit)
        pred = target.new_zeros(*plan.order.shape, target.shape[-1])
        pred[plan.lengths > 0] = patchify(self.predict(images, mask).float(), self.mask_unit)
        pred.masked_fill_(~plan.mask[..., None], 0)
        zero = target.new_zeros(*target.shape[:2], 1)
        return dict(plan=plan, pred=pred, target=target, mean=zero, std=zero + 1, images=inputs)
