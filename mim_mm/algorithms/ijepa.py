"""I-JEPA: Self-Supervised Learning from Images with a Joint-Embedding Predictive Architecture (Assran et al., CVPR
2023, arXiv 2301.08243), for any mask plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import torch
from torch import Tensor
from torch.nn import functional as F

from mim_mm.algorithms.base import Pretraining, Terms
from mim_mm.algorithms.teacher import Teacher, frozen_copy
from mim_mm.decoders.ijepa_predictor import JEPAPredictor
from mim_mm.encoders import build_backbone, encoder_of
from mim_mm.encoders.grid import gather_parts
from mim_mm.encoders.initial import init_ijepa
from mim_mm.losses import at_least_fp32
from mim_mm.masking import MaskPlan
from mim_mm.registry import MODELS

MOMENTUM = MappingProxyType(dict(start=0.996, end=1.0, shape='linear'))


@MODELS.register_module(name='IJEPA')
class IJEPA(Pretraining):
    """Encode the context; predict what a teacher makes of the targets, which saw the whole image.

    ``loss = smooth L1 (beta 1) of the predictor's output and the teacher's features``, a mean over all values of all
    targets. The teacher's features are those after its final norm, each patch normalised once more over its channels
    (variance floor 1e-5, no scale). The predictor runs once for each target, the encoder once for all that share a
    context. The teacher is an average of the encoder that follows every optimizer step.

    Saved as ``backbone.*`` (the context encoder), ``predictor.*`` and ``teacher.*``. The release evaluates the teacher:
    ``prefix='teacher.'``, mean of the patches.

    Any masker that gives all parts of all images as many visible and as many hidden patches will do: its visible
    patches are the context, its hidden ones the target.

    Gradients may be accumulated: no loss looks from one image at another, and the teacher follows optimizer steps.

    Args:
        backbone: config of ``mmpretrain.VisionTransformer`` (without class token in the release) or ``HiViT``.
        masker: config of a masking strategy, ``MultiBlockMasking`` in the paper.
        predictor: options of :class:`mim_mm.decoders.ijepa_predictor.JEPAPredictor`; heads are the encoder's unless
            it says otherwise.
        momentum: of the teacher, see :func:`mim_mm.algorithms.teacher.build_momentum`.
        data_preprocessor: as :class:`Pretraining`.
    """

    drops_tokens = True

    def __init__(
        self,
        backbone: dict,
        masker: dict,
        predictor: Mapping | None = None,
        momentum: float | Mapping | Sequence = MOMENTUM,
        data_preprocessor: dict | None = None,
        init_cfg: dict | list | None = None,
    ) -> None:
        super().__init__(masker, data_preprocessor, init_cfg)
        self.backbone = build_backbone(backbone, 'encode')
        self.encoder = encoder_of(self.backbone, 'encode')
        self.grid = self.encoder.grid
        self._start_encoder()
        heads = dict(num_heads=self.encoder.heads)
        self.predictor = JEPAPredictor(self.grid, self.encoder.width, **{**heads, **(predictor or {})})
        self.teacher = frozen_copy(self.backbone, drop_path=False)
        self.teachers = [Teacher({'backbone': 'teacher'}, momentum)]

    def _start_encoder(self) -> None:
        self.encoder.prepare('sincos')
        init_ijepa(self.backbone)

    def init_weights(self) -> None:
        """As the release; a backbone with an ``init_cfg`` of its own (a checkpoint to go on from) as that says."""
        super().init_weights()
        if self.backbone.init_cfg is None:
            self._start_encoder()
        self.predictor.init_weights()
        self.renew_teachers()

    def loss(self, inputs: Tensor, data_samples: list | None = None) -> dict[str, Tensor]:
        """``loss_features`` of one step and what is watched.

        Args:
            inputs: normalised images (B, C, H, W).
            data_samples: ignored; unlabelled images have none.

        Returns:
            ``loss_features``; ``context`` and ``target``, patches of each; ``target_std``, how far the normalised
            targets of the batch spread in a channel (0 where all patches look alike to the teacher: a collapse).
        """
        tokens = self.encoder.embed(inputs)
        plan = self.draw_plan(tokens, self.mask_generator)
        features = self.teach(inputs)
        said = self.predict(tokens, plan, self.grid.of_image(inputs))
        wanted = gather_parts(features, plan.hidden)
        with torch.autocast(inputs.device.type, enabled=False):
            loss = F.smooth_l1_loss(at_least_fp32(said), wanted)
        metrics = dict(
            context=loss.new_full((), plan.num_visible[0]),
            target=loss.new_full((), plan.hidden.shape[-1]),
            target_std=features.flatten(0, 1).std(dim=0).mean(),
        )
        self.seen_features = features.mean(dim=1)
        return self.outcome(Terms({'loss_features': loss}, metrics), lambda: {'loss_features': plan.hidden.numel()})

    @torch.no_grad()
    def teach(self, images: Tensor) -> Tensor:
        """What the teacher makes of the patches of whole images, (B, N, D), normalised without a scale."""
        _, features = encoder_of(self.teacher).encode_whole(images)
        with torch.autocast(images.device.type, enabled=False):
            features = at_least_fp32(features)
            return F.layer_norm(features, features.shape[-1:])

    def predict(self, tokens: Tensor, plan: MaskPlan, grid: tuple[int, int]) -> Tensor:
        """The features of the hidden patches, from embedded images (B, N, D).

        Returns:
            (B*K, M, D) in the order of ``plan.hidden``.

        Raises:
            ValueError: parts or images differ in how many patches they see.
        """
        latent = self.encode_copies(tokens, plan, 'I-JEPA')
        base = (self.grid.height, self.grid.width)
        context, target = plan.visible.flatten(0, 1), plan.hidden.flatten(0, 1)
        return self.predictor(latent, context, target, None if grid == base else grid)
