"""MAE: Masked Autoencoders Are Scalable Vision Learners (He et al., CVPR 2022, arXiv 2111.06377), for any mask plan."""

from __future__ import annotations

import torch
from torch import Tensor

from mim_mm.algorithms.base import Pretraining, Terms
from mim_mm.algorithms.global_mean import Counts
from mim_mm.encoders import build_backbone, encoder_of
from mim_mm.encoders.packed import pack_plan
from mim_mm.losses import hidden_errors, mean_over_hidden, packed_errors
from mim_mm.masking import MaskPlan
from mim_mm.registry import MODELS
from mim_mm.targets import patch_statistics, patchify, pixel_target


@MODELS.register_module()
class MAE(Pretraining):
    """Encode the visible patches, predict the pixels of the hidden ones.

    With ``RandomMasking`` (K = 1) this is MAE; with a masker of K parts all parts run as one batch of B*K images and
    the loss is averaged over all hidden (part, patch) pairs. A masker that shows each image a different number of
    patches (a ragged plan) trains just so, its tokens packed without padding.

    Args:
        backbone: config of an mmpretrain ``VisionTransformer`` (``mmpretrain.VisionTransformer``) or ``HiViT``. Its
            weights are saved as ``backbone.*`` and load into any mmpretrain config.
        masker: config of a masking strategy; ``RandomMasking(ratio=0.75)`` in MAE.
        decoder: config of a decoder, ``MAEDecoder``.
        norm_pix: compare with patches standardised by their own statistics, as MAE's recipe does.
        norm_eps: variance floor of that; see :func:`mim_mm.targets.pixel_target`.
        pos_embed: 'sincos' (fixed, as MAE) or 'learned'.
        per_image_mean: average the errors within each image first; only with ragged plans does that differ from the
            default, see :func:`mim_mm.losses.reconstruction_loss`.
        img_size: side of the images, or (height, width), for backbones that do not state it (ConvNeXt, ResNet: 224).
        data_preprocessor: as :class:`Pretraining`.
    """

    drops_tokens = True

    def __init__(
        self,
        backbone: dict,
        masker: dict,
        decoder: dict,
        norm_pix: bool = True,
        norm_eps: float = 1e-6,
        pos_embed: str = 'sincos',
        per_image_mean: bool = False,
        img_size: int | tuple[int, int] | None = None,
        data_preprocessor: dict | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(masker, data_preprocessor, init_cfg)
        self.backbone = build_backbone(backbone, 'encode')
        self.encoder = encoder_of(self.backbone)
        if img_size is not None:
            if not self.encoder.any_size:
                raise ValueError(f'img_size={img_size}: {type(self.backbone).__name__} has its own, set it there')
            self.backbone.img_size = img_size
        self.grid = self.encoder.grid
        values = self.grid.patch_size**2 * self.grid.in_channels
        self.decoder = MODELS.build(decoder).build_for(self.grid, values)
        self.norm_pix = norm_pix
        self.norm_eps = norm_eps
        self.pos_embed = pos_embed
        self.per_image_mean = per_image_mean
        # Images of another size than the backbone was built for are a mistake, unless ProgressiveResolutionHook, which
        # sets this, feeds them on purpose.
        self.sizes_vary = False
        self.encoder.prepare(pos_embed)
        self.decoder.init_weights()

    def init_weights(self) -> None:
        """MAE's initialisation, except for modules with an ``init_cfg`` of their own (a checkpoint to go on from)."""
        super().init_weights()
        if self.backbone.init_cfg is None:
            self.encoder.prepare(self.pos_embed)

    def loss(self, inputs: Tensor, data_samples: list | None = None) -> dict[str, Tensor]:
        """Losses and metrics of one step.

        Args:
            inputs: normalised images (B, C, H, W).
            data_samples: ignored; unlabelled images have none.

        Returns:
            ``loss_whole`` (optimised), ``mse`` (the same without weight) and ``mse_patch_mean``, what predicting the
            mean of each patch would score.
        """
        tokens = self.encoder.embed(inputs)
        plan = self.draw_plan(tokens, self.mask_generator)
        # Packed plans change their shapes from step to step, so they are never captured.
        captured = self.captured if plan.uniform else None
        terms = (captured or self.loss_under_plan)(inputs, tokens, plan)
        return self.outcome(terms, lambda: self.count_terms(plan))

    def loss_under_plan(self, inputs: Tensor, tokens: Tensor, plan: MaskPlan) -> Terms:
        """The step from the mask on, a function of its arguments alone: nothing is drawn here and nothing synchronises,
        so that it can be captured as one graph (``CompileHook``)."""
        predictions = self.predict_hidden(tokens, plan, self.grid_of(inputs))
        target = pixel_target(inputs, self.grid.patch_size, self.norm_pix, self.norm_eps)
        return self.compare(predictions, target, plan)

    def grid_of(self, images: Tensor) -> tuple[int, int] | None:
        """Rows and columns of the patches of images (B, C, H, W); None where only the backbone's own are expected."""
        return self.grid.of_image(images) if self.sizes_vary else None

    def predict_hidden(self, tokens: Tensor, plan: MaskPlan, grid: tuple[int, int] | None = None) -> Tensor:
        """Encode and decode under a plan.

        Args:
            tokens: (B, N, D) from the encoder's embedding.
            grid: rows and columns of the patches, where they are not those of the backbone.

        Returns:
            Under a uniform plan (B, K, M, P), the patches in the order of ``plan.hidden``; under any other
            what :meth:`predict_packed` returns.
        """
        if not plan.uniform:
            return self.predict_packed(tokens, plan, grid)
        latent = self.encoder.encode(tokens, plan.order[..., : plan.num_visible[0]])
        return self.decode(latent, plan, grid)

    def decode(self, latent: Tensor, plan: MaskPlan, grid: tuple[int, int] | None = None) -> Tensor:
        """Hidden patches (B, K, M, P) from the latent (B*K, P+V, D) of the visible ones, under a uniform plan."""
        hidden = self.decoder(latent, plan.kept.flatten(0, 1), plan.num_visible[0], plan.num_patches, grid)
        return hidden.unflatten(0, plan.order.shape[:2])

    def predict_packed(self, tokens: Tensor, plan: MaskPlan, grid: tuple[int, int] | None = None) -> Tensor:
        """Encode and decode under any plan, parts of all lengths in one batch without padding.

        Args:
            tokens: (B, N, D) from the encoder's embedding.
            grid: see :meth:`predict_hidden`.

        Returns:
            (H, P), the hidden patches in the order of ``plan.hidden_index()``.
        """
        packing = pack_plan(plan, self.grid.num_prefix)
        latent = self.encoder.encode_packed(tokens, packing)
        return self.decoder.forward_packed(latent, packing, grid)

    def spread(self, predictions: Tensor, plan: MaskPlan) -> Tensor:
        """What :meth:`predict_hidden` returned as (B, K, N, P) in patch order, 0 where nothing was predicted."""
        values = predictions.shape[-1]
        if plan.uniform:
            dense = predictions.new_zeros(*plan.order.shape[:2], plan.num_patches, values)
            index = plan.hidden[..., None].expand_as(predictions)
            return dense.scatter(2, index, predictions)
        dense = predictions.new_zeros(plan.order.numel(), values)
        return dense.index_copy(0, plan.hidden_index(), predictions).view(*plan.order.shape, values)

    def compare(self, predictions: Tensor, target: Tensor, plan: MaskPlan) -> Terms:
        """Mean squared error over all hidden (image, part, patch) triples of the batch.

        Args:
            predictions: from :meth:`predict_hidden`.
            target: (B, N, P).
        """
        # An image's patch mean is what it would take to look right without knowing any detail.
        flat = target.var(dim=-1, correction=0, keepdim=True)
        if plan.uniform:
            hidden = plan.hidden
            mse = hidden_errors(predictions, target, hidden).mean()
            trivial = flat.gather(1, hidden.flatten(1)[..., None]).mean()
        else:
            index = plan.hidden_index()
            image = index // plan.order[0].numel()
            place = image * plan.num_patches + index % plan.num_patches
            errors = packed_errors(predictions, target, place)
            mse = mean_over_hidden(errors, image, len(target), self.per_image_mean)
            trivial = mean_over_hidden(flat.flatten()[place], image, len(target), self.per_image_mean)
        return Terms({'loss_whole': mse}, {'mse': mse, 'mse_patch_mean': trivial})

    def count_terms(self, plan: MaskPlan) -> Counts:
        """How many terms each loss of :meth:`compare` is the mean of."""
        hidden = plan.hidden_per_image()
        return {'loss_whole': int((hidden > 0).sum() if self.per_image_mean else hidden.sum())}

    @torch.no_grad()
    def reconstruct(self, inputs: Tensor, generator: torch.Generator | None = None) -> dict:
        """Predictions of every part in patch order, for figures.

        Args:
            inputs: normalised images (B, C, H, W).

        Returns:
            ``plan``; ``pred`` (B, K, N, P) in target space, 0 at visible patches; ``target`` (B, N, P); ``mean`` and
            ``std`` (B, N, 1) which turn target space into normalised pixels (0 and 1 without ``norm_pix``); ``images``.
        """
        tokens = self.encoder.embed(inputs)
        plan = self.draw_plan(tokens, generator)
        target = pixel_target(inputs, self.grid.patch_size, self.norm_pix, self.norm_eps)
        pred = self.spread(self.predict_hidden(tokens, plan, self.grid_of(inputs)), plan).to(target.dtype)
        mean, std = patch_statistics(patchify(inputs.float(), self.grid.patch_size), self.norm_eps)
        if not self.norm_pix:
            mean, std = mean.zero_(), std.fill_(1)
        return dict(plan=plan, pred=pred, target=target, mean=mean, std=std, images=inputs)
