"""data2vec 2.0: Efficient Self-supervised Learning with Contextualized Target Representations for Vision, Speech and
Language (Baevski et al., ICML 2023, arXiv 2212.07525): images, for any mask plan of one length."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import torch
from torch import Tensor
from torch.nn import functional as F

from mim_mm.algorithms.base import Pretraining, Terms
from mim_mm.algorithms.teacher import Teacher, frozen_copy
from mim_mm.decoders.conv_decoder import ConvDecoder
from mim_mm.encoders import build_backbone, encoder_of
from mim_mm.encoders.blocks import known_blocks
from mim_mm.encoders.grid import gather_parts
from mim_mm.encoders.initial import init_data2vec2
from mim_mm.encoders.positions import plain_drop_path
from mim_mm.losses import at_least_fp32
from mim_mm.masking import MaskPlan
from mim_mm.masking.plan import draw_normal
from mim_mm.registry import MODELS

MOMENTUM = MappingProxyType(dict(start=0.9998, end=0.99999, steps=100_000))


@MODELS.register_module(name='data2vec2')
class Data2Vec2(Pretraining):
    """Encode the visible patches of K copies of an image; of the hidden ones predict what one teacher makes of it.

    The target of a patch: what the MLPs of ``target_blocks`` of the teacher add on the whole image, each normalised
    over the patches of the image, channel by channel, their mean, normalised over the channels (variance floors 1e-5,
    no scale). It is made once and serves all copies. The decoder gets the student's tokens at their places on the grid
    and noise ``noise_std * N(0, 1)`` everywhere else. With ``d(a, b) = sum of squares over the D channels / sqrt(D)``:

    * ``loss_features``: the mean over hidden patches of ``d(decoder's output, target)``.
    * ``loss_cls``: ``cls_weight`` times the mean over copies of ``d(student's class token, mean of the targets of all
      patches)``. The release takes 0.01 of the *sum* over the copies of a GPU, so that its weight grows with the
      images that a GPU has: 16 images of 16 copies make 2.56 (ViT-B), 8 make 1.28 (ViT-L).

    The teacher is an average of the student's encoder, embedding included, that follows every optimizer step; it reads
    in eval mode and in the precision of the student.

    Saved as ``backbone.*``, ``decoder.*`` and ``teacher.*``; the release fine-tunes the student.

    Any masker that gives all parts of all images as many visible and as many hidden patches will do; patches that a
    plan throws away are noise to the decoder and are not predicted.

    Gradients may be accumulated: no loss looks from one image at another, and the teacher follows optimizer steps.

    Args:
        backbone: config of ``PostNormViT``; mmpretrain's ``VisionTransformer`` and its kin will do.
        masker: config of a masking strategy; ``InverseBlockMasking(num_parts=16)`` in the paper.
        decoder: options of :class:`mim_mm.decoders.conv_decoder.ConvDecoder`.
        target_blocks: which blocks, from 0 and ascending; negative ones from the end. 10 of 12 in ViT-B, 18 of 24 in L.
        momentum: of the teacher, see :func:`mim_mm.algorithms.teacher.build_momentum`.
        cls_weight: of ``loss_cls``; 0 leaves it out, which a backbone without class token needs.
        noise_std: of the noise.
        data_preprocessor: as :class:`Pretraining`.

    Raises:
        ValueError: blocks that do not exist, none, or out of order; negative weight or noise; no class token to learn.
    """

    drops_tokens = True

    def __init__(
        self,
        backbone: dict,
        masker: dict,
        decoder: Mapping | None = None,
        target_blocks: Sequence[int] = tuple(range(-10, 0)),
        momentum: float | Mapping | Sequence = MOMENTUM,
        cls_weight: float = 2.56,
        noise_std: float = 0.01,
        data_preprocessor: dict | None = None,
        init_cfg: dict | list | None = None,
    ) -> None:
        super().__init__(masker, data_preprocessor, init_cfg)
        self.backbone = build_backbone(backbone, 'encode', 'mlp_outputs')
        self.encoder = encoder_of(self.backbone)
        plain_drop_path(self.backbone)
        self.grid = self.encoder.grid
        self.target_blocks = known_blocks('target_blocks', target_blocks, self.encoder.depth)
        if min(cls_weight, noise_std) < 0:
            raise ValueError(f'cls_weight={cls_weight}, noise_std={noise_std}: neither may be below 0')
        if cls_weight and not self.encoder.num_prefix:
            raise ValueError(f'cls_weight={cls_weight}, but the backbone has no class token: set cls_weight=0')
        self.cls_weight, self.noise_std = cls_weight, noise_std
        init_data2vec2(self.backbone)
        self.decoder = ConvDecoder(self.encoder.width, **(decoder or {}))
        self.teacher = frozen_copy(self.backbone)
        self.teachers = [Teacher({'backbone': 'teacher'}, momentum, mode='eval')]

    def init_weights(self) -> None:
        """As the release; a backbone with an ``init_cfg`` of its own (a checkpoint to go on from) as that says."""
        super().init_weights()
        if self.backbone.init_cfg is None:
            init_data2vec2(self.backbone)
        self.decoder.init_weights()
        self.renew_teachers()

    def loss(self, inputs: Tensor, data_samples: list | None = None) -> dict[str, Tensor]:
        """The losses of one step and what is watched.

        Args:
            inputs: normalised images (B, C, H, W).
            data_samples: ignored; unlabelled images have none.

        Returns:
            ``loss_features`` and, where it has a weight, ``loss_cls``; ``target_std`` and ``predicted_std``, how far
            targets and predictions of hidden patches spread in a channel over the batch: both near 0 is a collapse.
        """
        tokens = self.encoder.embed(inputs)
        plan = self.draw_plan(tokens, self.mask_generator)
        features = self.teach(inputs)
        latent = self.encode_copies(tokens, plan, 'data2vec 2.0')
        said = self.predict(latent, plan, self.grid.of_image(inputs))
        wanted = gather_parts(features, plan.hidden)
        with torch.autocast(inputs.device.type, enabled=False):
            said = at_least_fp32(said)
            losses = dict(loss_features=distance(said, wanted).mean())
            if self.cls_weight:
                whole = features.mean(dim=1).repeat_interleave(plan.num_parts, dim=0)
                losses['loss_cls'] = self.cls_weight * distance(at_least_fp32(latent[:, 0]), whole).mean()
        metrics = {
            name: value.flatten(0, 1).std(dim=0).mean()
            for name, value in dict(target_std=wanted, predicted_std=said).items()
        }
        counts = dict(loss_features=plan.hidden.numel(), loss_cls=len(latent))
        return self.outcome(Terms(losses, metrics), lambda: counts)

    @torch.no_grad()
    def teach(self, images: Tensor) -> Tensor:
        """Targets (B, N, D) of all patches of whole images, fp32."""
        found = encoder_of(self.teacher).mlp_outputs(images, self.target_blocks)
        patches = [output[:, self.encoder.num_prefix :] for output in found]
        self.seen_features = patches[-1].mean(dim=1)
        with torch.autocast(images.device.type, enabled=False):
            normed = [F.instance_norm(at_least_fp32(x).transpose(1, 2)) for x in patches]
            mean = torch.stack(normed).mean(dim=0).transpose(1, 2)
            return F.layer_norm(mean, mean.shape[-1:])

    def predict(self, latent: Tensor, plan: MaskPlan, grid: tuple[int, int]) -> Tensor:
        """The features of the hidden patches, (B*K, M, D) in the order of ``plan.hidden``.

        Args:
            latent: (B*K, P+V, D), patches in the order of ``plan.visible``.
            grid: rows and columns of the patches.
        """
        seen = latent[:, self.encoder.num_prefix :]
        noise = draw_normal((len(seen), plan.num_patches, seen.shape[-1]), seen, self.mask_generator)
        places = plan.visible.flatten(0, 1)[..., None].expand_as(seen)
        canvas = (self.noise_std * noise.to(seen.dtype)).scatter(1, places, seen)
        return gather_parts(self.decoder(canvas, grid), plan.hidden.flatten(0, 1)[:, None])


def distance(found: Tensor, wanted: Tensor) -> Tensor:
    """The sum of squared differences over the D channels divided by sqrt(D), (..., D) -> (...)."""
    return (found - wanted).square().sum(dim=-1) * found.shape[-1] ** -0.5
