"""CMAE: Contrastive Masked Autoencoders Are Stronger Vision Learners (Huang et al., TPAMI 2023, arXiv 2207.13532)."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mim_mm.algorithms.base import Terms
from mim_mm.algorithms.batch_norm import GlobalBatchNorm
from mim_mm.algorithms.contrast import info_nce, spread_of
from mim_mm.algorithms.mae import MAE
from mim_mm.algorithms.teacher import Teacher, frozen_copy
from mim_mm.encoders import encoder_of
from mim_mm.encoders.mask_units import MaskUnits
from mim_mm.encoders.packed import pack_plan
from mim_mm.masking import MaskPlan
from mim_mm.masking.plan import host_index
from mim_mm.registry import MODELS
from mim_mm.targets import pixel_target


def two_layers(in_dims: int, hidden_dims: int, out_dims: int) -> nn.Sequential:
    """Linear, BatchNorm over all ranks, ReLU, Linear without bias; torch's own start, as the release's."""
    return nn.Sequential(
        OrderedDict(
            fc0=nn.Linear(in_dims, hidden_dims),
            bn0=GlobalBatchNorm(hidden_dims, eps=1e-6),
            relu=nn.ReLU(),
            fc1=nn.Linear(hidden_dims, out_dims, bias=False),
        )
    )


@MODELS.register_module()
class CMAE(MAE):
    """MAE of a masked view, whose features are also matched with those of a shifted, unmasked view of the image.

    A second, small decoder turns the latent of the visible patches into features of all patches; their mean goes
    through projector and predictor and is to find, among the targets of all images of all ranks, that of its own image
    (InfoNCE, one direction). A target is the mean of the patches that the target encoder, an average of the encoder
    without its final norm, makes of the second view, behind the target projector. No gradient flows into targets.

    ``L = L_whole + contrast_weight * 2 * temperature * CE``: the factor of the release, 0.14 at its temperature.
    Parts of a masker with several are students of their own, with the target of their image.

    Args:
        backbone, masker, decoder: as :class:`MAE`.
        feature_decoder: config of the second decoder, ``MAEDecoder`` of depth 2; it predicts vectors of the encoder's
            width (in the release of p*p*3, which for ViT-B/16 is the same 768).
        mask_unit: side in pixels of the squares that are hidden as one; 32 in the release, two patches of ViT-B/16. The
            masker's ratio counts squares. None: single patches.
        hidden_dims, out_dims: of projector and predictor.
        temperature: of the similarities.
        contrast_weight: weight of the contrastive term, 1 in the release.
        momentum: of target encoder and projector, see :func:`mim_mm.algorithms.teacher.build_momentum`. Buffers of the
            target projector are its own: it normalises by its own batch.
        **kwargs: the others of :class:`MAE`.

    Raises:
        ValueError: a temperature that is not positive, a negative weight.
    """

    batch_statistics = 'negatives and BatchNorm statistics of the batch'
    # Targets are gathered over ranks inside the step, so it is not one graph, and --compile refuses.
    loss_under_plan = None

    def __init__(
        self,
        backbone: dict,
        feature_decoder: dict,
        mask_unit: int | None = None,
        hidden_dims: int = 1536,
        out_dims: int = 256,
        temperature: float = 0.07,
        contrast_weight: float = 1.0,
        momentum: float | dict | list = 0.996,
        **kwargs,
    ) -> None:
        super().__init__(backbone, **kwargs)
        if temperature <= 0 or contrast_weight < 0:
            raise ValueError(
                f'temperature={temperature}, contrast_weight={contrast_weight}: the first must be above 0, the second '
                'not below'
            )
        width = self.encoder.width
        self.feature_decoder = MODELS.build(feature_decoder).build_for(self.grid, width)
        self.feature_decoder.init_weights()
        self.projector = two_layers(width, hidden_dims, out_dims)
        self.predictor = two_layers(out_dims, hidden_dims, out_dims)
        self.target_backbone = frozen_copy(self.backbone)
        self.target_backbone.final_norm = False  # its norm stays in the checkpoint, unused
        self.target_projector = frozen_copy(self.projector)
        self.teachers = [
            Teacher({'backbone': 'target_backbone', 'projector': 'target_projector'}, momentum, buffers='own')
        ]
        self.mask_unit = mask_unit or self.grid.patch_size
        self.temperature, self.contrast_weight = temperature, contrast_weight
        self.mask_units_of(self.grid.height * self.grid.width)  # a unit that does not fit stops here

    def init_weights(self) -> None:
        """Encoder and both decoders as :class:`MAE`; projector and predictor as torch; targets copy."""
        super().init_weights()
        self.renew_teachers()

    def loss(self, inputs: list[Tensor], data_samples: list | None = None) -> dict[str, Tensor]:
        """Losses and metrics of one step.

        Args:
            inputs: normalised views [online, target] (B, C, H, W), of which the first is masked.
            data_samples: ignored.

        Returns:
            ``loss_whole`` (pixels) and ``loss_contrast`` (weighted), optimised; ``mse`` and ``mse_patch_mean`` as
            :class:`MAE`; ``contrast_accuracy``, how often the own target is the nearest; ``student_std`` and
            ``target_std``, the spread of the unit vectors over the batch times sqrt(width): 1 where they lie evenly on
            the sphere, 0 where all are one (collapse).
        """
        online, target = self.two_views(inputs)
        tokens = self.encoder.embed(online)
        plan = self.draw_plan(tokens, self.mask_generator)
        predictions, features, image = self.decode_both(tokens, plan)
        losses, metrics = self.compare(predictions, pixel_target(online, *self.target_options), plan)

        students = F.normalize(self.predictor(self.projector(features)).float(), dim=1)
        with torch.no_grad():
            _, patches = encoder_of(self.target_backbone).encode_whole(target)
            targets = F.normalize(self.target_projector(patches.float().mean(dim=1)).float(), dim=1)
        contrast, accuracy = info_nce(students, targets, image, self.temperature)
        losses['loss_contrast'] = self.contrast_weight * contrast
        metrics |= dict(
            contrast_accuracy=accuracy,
            student_std=spread_of(students),
            target_std=spread_of(targets),
        )
        return self.outcome(Terms(losses, metrics), lambda: self.count_terms(plan) | {'loss_contrast': len(image)})

    @property
    def target_options(self) -> tuple[int, bool, float]:
        """What :func:`mim_mm.targets.pixel_target` takes after the images."""
        return self.grid.patch_size, self.norm_pix, self.norm_eps

    def two_views(self, inputs: list[Tensor]) -> list[Tensor]:
        """The two views of a batch.

        Raises:
            ValueError: there is another number of them.
        """
        if isinstance(inputs, Tensor) or len(inputs) != 2:
            given = 'one tensor' if isinstance(inputs, Tensor) else f'{len(inputs)} views'
            raise ValueError(
                f'CMAE needs two views an image, [online, target], and got {given}: use '
                'configs/_base_/datasets/imagenet_shifted_views.py, whose pipeline ends in ShiftedViews and PackViews'
            )
        return list(inputs)

    def decode_both(self, tokens: Tensor, plan: MaskPlan) -> tuple[Tensor, Tensor, Tensor]:
        """Pixels, features and images of the parts that exist, R of them.

        Args:
            tokens: (B, N, D) from the encoder's embedding.

        Returns:
            Predictions as :meth:`MAE.predict_hidden`; (R, D), the mean of the feature decoder's output over all
            patches, visible ones too; long (R,), the image of each part.
        """
        if plan.uniform:
            length, order = plan.num_visible[0], plan.kept.flatten(0, 1)
            latent = self.encoder.encode(tokens, plan.order[..., :length])
            predictions = self.decode(latent, plan)
            features = self.feature_decoder.forward_everywhere(latent, order, length, plan.num_patches)
        else:
            packing = pack_plan(plan, self.grid.num_prefix)
            latent = self.encoder.encode_packed(tokens, packing)
            predictions = self.decoder.forward_packed(latent, packing)
            features = self.feature_decoder.forward_everywhere_packed(latent, packing)
        image = host_index([row // plan.num_parts for row in plan.rows()[0]], tokens.device)
        return predictions, features.float().mean(dim=1), image

    # ---- masks of squares

    def mask_units_of(self, patches: int) -> MaskUnits:
        """The squares that tile the grid of the encoder, whose number of patches is given."""
        grid = self.grid
        if patches != grid.num_patches:
            raise ValueError(
                f'{patches} patches are not the {grid.height} x {grid.width} that the encoder is built for'
            )
        size = grid.patch_size
        return MaskUnits.cover(grid.height * size, grid.width * size, size, self.mask_unit)

    def draw_plan(
        self, tokens: Tensor, generator: torch.Generator | None = None, units: MaskUnits | None = None
    ) -> MaskPlan:
        """As every method's, the masker deciding about squares of ``mask_unit``; the plan is over patches."""
        units = units or self.mask_units_of(tokens.shape[1])
        plan = super().draw_plan(tokens, generator, units)
        return plan if units.factor == 1 else over_patches(plan, units)


def over_patches(plan: MaskPlan, units: MaskUnits) -> MaskPlan:
    """A plan over units as one over their patches, which stay in the order of the image."""
    rank = 1 * plan.mask + 2 * plan.thrown  # (B, K, N): visible 0, hidden 1, thrown 2
    rank = units.expand(rank.flatten(0, 1)).flatten(1).unflatten(0, rank.shape[:2])
    order, size = rank.argsort(dim=-1, stable=True), units.factor**2
    if plan.num_thrown:
        return MaskPlan(order, tuple(size * n for n in plan.num_visible), num_thrown=size * plan.num_thrown)
    if plan.per_image is None:
        return MaskPlan(order, tuple(size * n for n in plan.num_visible))
    return MaskPlan.from_lengths(order, size * plan.per_image)
