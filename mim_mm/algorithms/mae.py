"""MAE: Masked Autoencoders Are Scalable Vision Learners (He et al., CVPR 2022, arXiv 2111.06377), for any mask plan."""

from __future__ import annotations

import torch
from mmengine.model import BaseModel
from torch import Tensor

from mim_mm.encoders import adapter_of
from mim_mm.losses import hidden_errors
from mim_mm.masking import MaskPlan
from mim_mm.registry import MODELS
from mim_mm.targets import patch_statistics, patchify, pixel_target


@MODELS.register_module()
class MAE(BaseModel):
    """Encode the visible patches, predict the pixels of the hidden ones.

    With ``RandomMasking`` (K = 1) this is MAE; with a masker of K parts all parts run as one batch of B*K images and
    the loss is averaged over all hidden (part, patch) pairs.

    Args:
        backbone: config of an mmpretrain ``VisionTransformer`` (``mmpretrain.VisionTransformer``) or ``HiViT``. Its
            weights are saved as ``backbone.*`` and load into any mmpretrain config.
        masker: config of a masking strategy; ``RandomMasking(ratio=0.75)`` in MAE.
        decoder: config of a decoder, ``MAEDecoder``.
        norm_pix: compare with patches standardised by their own statistics, as MAE's recipe does.
        norm_eps: variance floor of that; see :func:`mim_mm.targets.pixel_target`.
        pos_embed: 'sincos' (fixed, as MAE) or 'learned'.
        data_preprocessor: config of mmengine's or mmpretrain's preprocessor; normalises uint8 batches on the device.
    """

    def __init__(
        self,
        backbone: dict,
        masker: dict,
        decoder: dict,
        norm_pix: bool = True,
        norm_eps: float = 1e-6,
        pos_embed: str = 'sincos',
        data_preprocessor: dict | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(data_preprocessor, init_cfg)
        self.backbone = MODELS.build(backbone)
        self.masker = MODELS.build(masker)
        self.encoder = adapter_of(self.backbone)
        self.grid = self.encoder.describe(self.backbone)
        values = self.grid.patch_size**2 * self.grid.in_channels
        self.decoder = MODELS.build(decoder).build_for(self.grid, values)
        self.norm_pix = norm_pix
        self.norm_eps = norm_eps
        self.pos_embed = pos_embed
        # None draws masks from torch's global generator; MaskSeedHook puts one here that is a function of the step.
        self.mask_generator: torch.Generator | None = None
        self.encoder.prepare(self.backbone, pos_embed)
        self.decoder.init_weights()

    def init_weights(self) -> None:
        """MAE's initialisation, except for modules with an ``init_cfg`` of their own (a checkpoint to go on from)."""
        super().init_weights()
        if self.backbone.init_cfg is None:
            self.encoder.prepare(self.backbone, self.pos_embed)

    def forward(self, inputs: Tensor, data_samples: list | None = None, mode: str = 'tensor'):
        """``mode='loss'`` for training, ``'tensor'`` for the features of the whole, unmasked image."""
        if mode == 'loss':
            return self.loss(inputs, data_samples)
        if mode == 'tensor':
            return self.backbone(inputs)
        raise ValueError(f"mode is '{mode}': a pretraining model has 'loss' and 'tensor'; evaluate its encoder by transfer")

    def loss(self, inputs: Tensor, data_samples: list | None = None) -> dict[str, Tensor]:
        """Losses and metrics of one step.

        Args:
            inputs: normalised images (B, C, H, W).
            data_samples: ignored; unlabelled images have none.

        Returns:
            ``loss_whole`` (optimised), ``mse`` (the same without weight) and ``mse_patch_mean``, what predicting the
            mean of each patch would score. Scalars that stay on the device.
        """
        tokens = self.encoder.embed(self.backbone, inputs)
        plan = self.masker(tokens.detach(), self.mask_generator)
        predictions = self.predict_hidden(tokens, plan)
        target = pixel_target(inputs, self.grid.patch_size, self.norm_pix, self.norm_eps)
        return self.compare(predictions, target, plan)

    def predict_hidden(self, tokens: Tensor, plan: MaskPlan) -> list[Tensor]:
        """Encode and decode under a plan.

        Args:
            tokens: (B, N, D) from the encoder's embedding.

        Returns:
            For each group of parts of equal length (one group unless the plan is uneven) the predictions
            (B, parts of the group, M, P) in the order of ``plan.order[..., V:]``.
        """
        predictions = []
        for parts, length in plan.equal_length_groups():
            order = plan.order if len(parts) == plan.num_parts else plan.order[:, parts]
            latent = self.encoder.encode(self.backbone, tokens, order[..., :length])
            hidden = self.decoder(latent, order.flatten(0, 1), length)
            predictions.append(hidden.unflatten(0, order.shape[:2]))
        return predictions

    def compare(self, predictions: list[Tensor], target: Tensor, plan: MaskPlan) -> dict[str, Tensor]:
        """Mean squared error over all hidden (image, part, patch) triples of the batch."""
        # An image's patch mean is what it would take to look right without knowing any detail.
        flat = (target - target.mean(dim=-1, keepdim=True)).square().mean(dim=-1, keepdim=True)
        errors, trivial = [], []
        for pred, (parts, length) in zip(predictions, plan.equal_length_groups(), strict=True):
            hidden = plan.order[:, parts, length:] if len(predictions) > 1 else plan.order[..., length:]
            errors.append(hidden_errors(pred, target, hidden).flatten())
            trivial.append(flat.gather(1, hidden.flatten(1)[..., None]).flatten())
        mse = torch.cat(errors).mean()
        return {'loss_whole': mse, 'mse': mse.detach(), 'mse_patch_mean': torch.cat(trivial).mean()}

    @torch.no_grad()
    def reconstruct(self, inputs: Tensor, generator: torch.Generator | None = None) -> dict:
        """Predictions of every part in patch order, for figures.

        Args:
            inputs: normalised images (B, C, H, W).

        Returns:
            ``plan``; ``pred`` (B, K, N, P) in target space, 0 at visible patches; ``target`` (B, N, P); ``mean`` and
            ``std`` (B, N, 1) which turn target space into normalised pixels (0 and 1 without ``norm_pix``); ``images``.
        """
        tokens = self.encoder.embed(self.backbone, inputs)
        plan = self.masker(tokens, generator)
        target = pixel_target(inputs, self.grid.patch_size, self.norm_pix, self.norm_eps)
        pred = target.new_zeros(*plan.order.shape, target.shape[-1])
        for hidden_pred, (parts, length) in zip(
            self.predict_hidden(tokens, plan), plan.equal_length_groups(), strict=True
        ):
            for column, part in enumerate(parts):
                index = plan.order[:, part, length:, None].expand(-1, -1, target.shape[-1])
                pred[:, part].scatter_(1, index, hidden_pred[:, column].to(pred.dtype))
        mean, std = patch_statistics(patchify(inputs.float(), self.grid.patch_size), self.norm_eps)
        if not self.norm_pix:
            mean, std = mean.zero_(), std.fill_(1)
        return dict(plan=plan, pred=pred, target=target, mean=mean, std=std, images=inputs)
