"""BootMAE: Bootstrapped Masked Autoencoders for Vision BERT Pretraining (Dong et al., ECCV 2022, arXiv 2207.07116)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from mim_mm.algorithms.base import Pretraining, Terms
from mim_mm.algorithms.teacher import Teacher, frozen_copy
from mim_mm.clock import Clock
from mim_mm.decoders.depth_decoder import DepthDecoder
from mim_mm.encoders import build_backbone, encoder_of
from mim_mm.encoders.initial import init_bootmae
from mim_mm.encoders.positions import plain_drop_path, set_positions
from mim_mm.losses import at_least_fp32, block_weights
from mim_mm.masking import MaskPlan
from mim_mm.registry import MODELS
from mim_mm.targets import channel_statistics, patchify

NORM_EPS = 1e-6  # of the norm of both sides of the feature loss


@MODELS.register_module()
class BootMAE(Pretraining):
    """Encode the visible patches; predict the pixels of the hidden ones, and what a teacher makes of the whole image.

    ``loss = L_pixels + w * L_features``. Two decoders start from the encoder's normalised last tokens; the one for
    pixels also reads the output of the first block, the one for features that of the last. Both losses are means over
    the hidden patches of W times the squared error, where W = 1 + the share of hidden patches among the 3 x 3 around
    (what lies outside of the image counts as visible): the middle of a block weighs up to 2.

    The teacher is an average of the encoder that follows every optimizer step and reads the whole image in eval mode;
    its last block, before the final norm, is the target. (The release averages its decoders too, and uses them for
    nothing.) The weight w rises in steps of an epoch, ``min((1 + epoch) / (feature_ramp * epochs), 1)``.

    Any masker that hides the same number of patches in all images will do. With ``SalienceMasking`` (SBAM) masks come
    from the student's embedded patches, and W from them; the teacher's image stays whole.

    Gradients may be accumulated: no loss looks from one image at another, and the teacher follows optimizer steps.

    Args:
        backbone: config of mmpretrain's ``BEiTViT`` without relative positions and layer scale (biases of queries and
            values, as released) or ``VisionTransformer``, with ``final_norm=True``. Saved as ``backbone.*``.
        masker: config of a masking strategy; see ``configs/_base_/models/bootmae_vit.py`` for BootMAE's.
        decoder_dims: width of the pixel decoder; 512 in BootMAE, where each of 12 heads then has 42 channels.
        decoder_depth: blocks of each decoder.
        feature_weight: w at its end; 0 is MAE with BootMAE's decoder.
        feature_ramp: part of the training over which w rises; 0 for none.
        momentum: of the teacher, see :func:`mim_mm.algorithms.teacher.build_momentum`.
        weigh_blocks: weigh patches by W; False: all alike.
        norm_eps: variance floor of the pixels, which are standardised channel by channel in each patch. 1e-5 is the
            release's; raise it (0.02) for small images with flat patches.
        data_preprocessor: as :class:`Pretraining`. BootMAE's mean and spread are 127.5.

    Raises:
        ValueError: a weight or the ramp is out of range, or the backbone has no final norm.
    """

    norm_pix = True  # what the reconstruction figure asks

    def __init__(
        self,
        backbone: dict,
        masker: dict,
        decoder_dims: int = 512,
        decoder_depth: int = 2,
        feature_weight: float = 1.0,
        feature_ramp: float = 0.25,
        momentum: float | Mapping | Sequence = ((0, 0.999), (100, 0.9999), (400, 0.99999)),
        weigh_blocks: bool = True,
        norm_eps: float = 1e-5,
        data_preprocessor: dict | None = None,
        init_cfg: dict | list | None = None,
    ) -> None:
        super().__init__(masker, data_preprocessor, init_cfg)
        if feature_weight < 0 or not 0 <= feature_ramp <= 1:
            raise ValueError(
                f'feature_weight={feature_weight}, feature_ramp={feature_ramp}: the weight must be >= 0, and the ramp '
                'a part of the training, 0 to 1; 1.0 and 0.25 are the release'
            )
        self.backbone = build_backbone(backbone, 'encode_levels')
        self._own_start = backbone.get('init_cfg') is not None
        self.encoder = encoder_of(self.backbone, 'encode_levels')
        if self.encoder.norm is None:
            raise ValueError('BootMAE decodes the normalised last tokens: set final_norm=True in its backbone')
        self.grid = grid = self.encoder.grid
        plain_drop_path(self.backbone)
        set_positions(self.backbone, 'sincos', grid.height, grid.width, self.encoder.position_rows)
        heads = self.encoder.heads
        self.pixel_decoder = DepthDecoder(grid, decoder_dims, decoder_depth, heads, pixels=True)
        self.feature_decoder = DepthDecoder(grid, grid.embed_dims, decoder_depth, heads, pixels=False)
        self.teacher = frozen_copy(self.backbone)
        self.teacher.eval()  # mmpretrain's returns nothing
        self.teachers = [Teacher({'backbone': 'teacher'}, momentum)]
        self.feature_weight, self.feature_ramp = feature_weight, feature_ramp
        self.weigh_blocks, self.norm_eps = weigh_blocks, norm_eps
        # w now; a buffer, so that changing it neither waits for a device nor recompiles
        self.register_buffer('feature_scale', torch.tensor(float(feature_weight)), persistent=False)

    def init_weights(self) -> None:
        """As the release; a backbone with an ``init_cfg`` in its config as that says. The teacher is a copy."""
        super().init_weights()
        if not self._own_start:
            init_bootmae(self.backbone)
            grid = self.grid
            set_positions(self.backbone, 'sincos', grid.height, grid.width, self.encoder.position_rows)
        self.renew_teachers()

    def train(self, mode: bool = True) -> BootMAE:
        """The teacher stays in eval mode."""
        super().train(mode)
        self.teacher.eval()
        return self

    def begin_step(self, clock: Clock) -> None:
        """The weight of the features follows the epoch."""
        super().begin_step(clock)
        self.feature_scale.fill_(self.weight_at(clock))

    def weight_at(self, clock: Clock) -> float:
        """w in the epoch of ``clock``.

        Raises:
            ValueError: there is a ramp, and the training loader has no length.
        """
        if not self.feature_ramp:
            return self.feature_weight
        if clock.epoch is None or clock.epochs is None:
            raise ValueError(
                f'feature_ramp={self.feature_ramp} is a part of the epochs of the training, and nobody knows how many '
                'there are: give a data set with a length, or set feature_ramp=0'
            )
        return self.feature_weight * min((1 + clock.epoch) / (self.feature_ramp * clock.epochs), 1.0)

    # ---- the step

    def loss(self, inputs: Tensor, data_samples: list | None = None) -> dict[str, Tensor]:
        """Losses and metrics of one step.

        Args:
            inputs: normalised images (B, C, H, W).
            data_samples: ignored; unlabelled images have none.

        Returns:
            ``loss_pixels`` and ``loss_features`` (weighted by w), which are optimised; ``features``, the latter without
            w; ``feature_weight``, w; ``mse``, the pixel error without W; ``feature_std``, how far the teacher's
            normalised features of the batch spread in a channel (0 where all patches look alike to it: a collapse).
        """
        tokens = self.encoder.embed(inputs)
        plan = self.draw_plan(tokens, self.mask_generator)
        pixels, features = self.predict(tokens, plan)
        image_targets = self.pixel_target(inputs)[0], self.feature_target(inputs)
        wanted_pixels, wanted_features = (self.hidden_of(target, plan) for target in image_targets)
        with torch.autocast(inputs.device.type, enabled=False):
            weights = self.weights(plan)
            squares = (at_least_fp32(pixels) - wanted_pixels).square().mean(dim=-1)
            features = F.layer_norm(at_least_fp32(features), features.shape[-1:], eps=NORM_EPS)
            apart = (weights * (features - wanted_features).square().mean(dim=-1)).mean()
            losses = {'loss_pixels': (weights * squares).mean(), 'loss_features': self.feature_scale * apart}
        spread = image_targets[1].flatten(0, 1).std(dim=0).mean()
        metrics = dict(features=apart, feature_weight=self.feature_scale, mse=squares.mean(), feature_std=spread)
        return self.outcome(Terms(losses, metrics), lambda: dict.fromkeys(losses, plan.hidden.numel()))

    def predict(self, tokens: Tensor, plan: MaskPlan) -> tuple[Tensor, Tensor]:
        """Encode the visible patches of embedded images (B, N, D) and decode the hidden ones.

        Returns:
            pixels (B*K, M, p*p*C) and features (B*K, M, D), in the order of ``plan.hidden``.

        Raises:
            ValueError: the images hide different numbers of patches.
        """
        if not plan.uniform:
            raise ValueError(
                'BootMAE needs the same number of hidden patches in every image and part, and this masker varies it: '
                "use AdaptiveRatio(scope='per_batch') or a fixed ratio; MAE takes any"
            )
        order = plan.order.flatten(0, 1)
        latent, (first, last) = self.encoder.encode_levels(tokens, plan.visible, (0, self.encoder.depth - 1))
        return self.pixel_decoder(latent, first, order), self.feature_decoder(latent, last, order)

    def pixel_target(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Patches (B, N, p*p*C), each channel standardised by its own mean and spread, and these two."""
        patches = patchify(at_least_fp32(images), self.grid.patch_size)
        mean, std = channel_statistics(patches, self.grid.in_channels, self.norm_eps)
        return (patches - mean) / std, mean, std

    @torch.no_grad()
    def feature_target(self, images: Tensor) -> Tensor:
        """What the teacher's last block makes of the patches of whole images, (B, N, D), normalised without a scale."""
        teacher = encoder_of(self.teacher)
        tokens = teacher.embed(images)
        everything = torch.arange(tokens.shape[1], device=tokens.device).expand(len(tokens), 1, -1)
        _, (features,) = teacher.encode_levels(tokens, everything, (teacher.depth - 1,))
        with torch.autocast(images.device.type, enabled=False):
            features = at_least_fp32(features[:, teacher.num_prefix :])
            return F.layer_norm(features, features.shape[-1:], eps=NORM_EPS)

    def weights(self, plan: MaskPlan) -> Tensor:
        """W of the hidden patches, (B*K, M)."""
        hidden = plan.hidden
        if not self.weigh_blocks:
            return self.feature_scale.new_ones(hidden.shape).flatten(0, 1)
        every = block_weights(plan.mask, (self.grid.height, self.grid.width)).to(self.feature_scale.dtype)
        return every.gather(2, hidden).flatten(0, 1)

    @staticmethod
    def hidden_of(target: Tensor, plan: MaskPlan) -> Tensor:
        """Targets (B, N, P) of the images as (B*K, M, P), in the order of ``plan.hidden``."""
        hidden = plan.hidden
        index = hidden.flatten(1)[..., None].expand(-1, -1, target.shape[-1])
        return target.gather(1, index).view(hidden.shape[0] * hidden.shape[1], hidden.shape[2], -1)

    @torch.no_grad()
    def reconstruct(self, inputs: Tensor, generator: torch.Generator | None = None) -> dict:
        """Predicted pixels in patch order, for figures; as :meth:`mim_mm.algorithms.mae.MAE.reconstruct`, ``mean`` and
        ``std`` being (B, N, p*p*C)."""
        tokens = self.encoder.embed(inputs)
        plan = self.draw_plan(tokens, generator)
        pixels, _ = self.predict(tokens, plan)
        target, mean, std = self.pixel_target(inputs)
        dense = target.new_zeros(*plan.order.shape, target.shape[-1])
        index = plan.hidden[..., None].expand(*plan.hidden.shape, target.shape[-1])
        pred = dense.scatter(2, index, pixels.to(target.dtype).view(index.shape))
        return dict(plan=plan, pred=pred, target=target, mean=mean, std=std, images=inputs)
