"""MoCo v3: An Empirical Study of Training Self-Supervised Vision Transformers (Chen et al., ICCV 2021, 2104.02057)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mim_mm.algorithms.base import Pretraining, Terms
from mim_mm.algorithms.batch_norm import GlobalBatchNorm
from mim_mm.algorithms.contrast import info_nce, spread_of
from mim_mm.algorithms.distillation import widen
from mim_mm.algorithms.teacher import Teacher, frozen_copy
from mim_mm.encoders import build_backbone, encoder_of
from mim_mm.encoders.initial import init_mocov3
from mim_mm.encoders.positions import plain_drop_path
from mim_mm.registry import MODELS

MOMENTUM = MappingProxyType(dict(start=0.99, end=1.0))  # --moco-m-cos, which all recipes of the release have


@MODELS.register_module()
class MoCoV3(Pretraining):
    """Each of two views is to find the other view of its image among those of all images of all ranks.

    Queries are the class tokens of both views behind projector and predictor, keys those of the momentum encoder
    behind its projector. ``loss_contrast = sum over both directions of 2 t CE(q1, k2)`` (InfoNCE, algorithm 1 of the
    paper). The momentum encoder follows between the pass of the queries and that of the keys. Nothing is hidden: there
    is no masker.

    Projector and predictor are mmpretrain's ``NonLinearNeck`` on BatchNorms over all ranks, and see one view at a time.
    The class of the same name in mmpretrain computes the same; here the momentum encoder follows once an optimizer
    step, and what is fixed stays fixed whatever the weights come from.

    Args:
        backbone: config of ``mmpretrain.VisionTransformer`` with a class token. Positions are fixed.
        hidden_dims, out_dims: of projector (three layers) and predictor (two).
        temperature: t of the similarities.
        momentum: of momentum encoder and projector, see :func:`mim_mm.algorithms.teacher.build_momentum`. Buffers of
            its BatchNorms are its own: it normalises by its own batch.
        freeze_patches: the patch embedding keeps the weights that it starts with (``--stop-grad-conv1``, which all
            recipes of the release have and the paper needs for stability).
        data_preprocessor: as :class:`Pretraining`; ``mmpretrain.SelfSupDataPreprocessor`` takes lists.

    Raises:
        ValueError: a temperature that is not positive, a backbone without class token.
    """

    batch_statistics = 'negatives and BatchNorm statistics of the batch'

    def __init__(
        self,
        backbone: dict,
        hidden_dims: int = 4096,
        out_dims: int = 256,
        temperature: float = 0.2,
        momentum: float | Mapping | Sequence = MOMENTUM,
        freeze_patches: bool = True,
        data_preprocessor: dict | None = None,
        init_cfg: dict | list | None = None,
    ) -> None:
        super().__init__(None, data_preprocessor, init_cfg)
        if temperature <= 0:
            raise ValueError(f'temperature is {temperature}: similarities are divided by it, 0.2 in the release')
        self.backbone = build_backbone(backbone, 'encode_whole')
        plain_drop_path(self.backbone)
        self.encoder = encoder_of(self.backbone)
        if not self.encoder.num_prefix:
            raise ValueError('the backbone has no class token (with_cls_token=False), which this method compares')
        self.freeze_patches = freeze_patches
        init_mocov3(self.backbone)
        self.backbone.pos_embed.requires_grad_(False)
        self.backbone.patch_embed.requires_grad_(not freeze_patches)
        self.projector = layers_of(3, self.encoder.width, hidden_dims, out_dims)
        self.predictor = layers_of(2, out_dims, hidden_dims, out_dims)
        self.teacher = nn.ModuleDict(dict(backbone=frozen_copy(self.backbone), projector=frozen_copy(self.projector)))
        self.teacher_encoder = encoder_of(self.teacher['backbone'])
        self.teachers = [
            Teacher({name: f'teacher.{name}' for name in self.teacher}, momentum, buffers='own', after_optimizer=False)
        ]
        self.temperature = temperature
        # Whether the optimizer has moved the weights since the momentum encoder looked at them.
        self.moved = True

    def init_weights(self) -> None:
        """As the release; a backbone with an ``init_cfg`` of its own (a checkpoint to go on from) as that says."""
        super().init_weights()
        if self.backbone.init_cfg is None:
            init_mocov3(self.backbone)
        self.renew_teachers()

    def loss(self, inputs: Sequence[Tensor], data_samples: list | None = None) -> dict[str, Tensor]:
        """``loss_contrast`` of one step and what is watched.

        Args:
            inputs: two normalised views, each (B, C, H, W).
            data_samples: ignored; unlabelled images have none.

        Returns:
            Beside it ``contrast_accuracy``, how often the own key is the nearest, and ``student_std`` and
            ``target_std``, the spread of queries and keys over the batch: 1 where the unit vectors lie evenly on the
            sphere, 0 where all are one (collapse).
        """
        both = torch.cat(self.two_views(inputs))
        features = self.encoder.encode_whole(both)[0][:, 0]
        queries = [unit(self.predictor((z,))[0]) for z in self.project(self.projector, features)]
        with torch.no_grad():
            self.follow()
            known = self.teacher_encoder.encode_whole(both)[0][:, 0]
            keys = [unit(z) for z in self.project(self.teacher['projector'], known)]
        image = torch.arange(len(keys[0]), device=both.device)
        there, back = (info_nce(q, k, image, self.temperature) for q, k in zip(queries, reversed(keys)))
        self.seen_features = features.detach()
        metrics = dict(
            contrast_accuracy=(there[1] + back[1]) / 2,
            student_std=spread_of(queries[0]),
            target_std=spread_of(keys[0]),
        )
        return self.outcome(
            Terms({'loss_contrast': there[0] + back[0]}, metrics), lambda: {'loss_contrast': len(image)}
        )

    @staticmethod
    def project(projector: nn.Module, features: Tensor) -> list[Tensor]:
        """Features (2*B, D) of both views to two (B, out); each view is normalised by its own statistics."""
        return [projector((view,))[0] for view in features.chunk(2)]

    def follow(self) -> None:
        """The momentum encoder follows, once an optimizer step also where gradients are accumulated."""
        if self.training and self.moved and self.clock is not None:
            self.teachers[0].update(self, self.clock)
            self.moved = False

    def end_step(self) -> None:
        super().end_step()
        self.moved = True

    def two_views(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """The two views of a batch.

        Raises:
            ValueError: there is another number of them, or they differ in size.
        """
        if isinstance(inputs, Tensor) or len(inputs) != 2 or inputs[0].shape != inputs[1].shape:
            shapes = tuple(inputs.shape) if isinstance(inputs, Tensor) else [tuple(view.shape) for view in inputs]
            raise ValueError(
                f'inputs has shape {shapes}: MoCo v3 learns from two views of one size; use '
                'configs/_base_/datasets/imagenet_moco_views.py, whose pipeline ends in MultiCrop and PackViews'
            )
        return list(inputs)


def layers_of(number: int, in_dims: int, hidden_dims: int, out_dims: int) -> nn.Module:
    """Linear layers without bias, a BatchNorm behind each, the last one's without parameters, ReLU between; torch's own
    start, as the release's."""
    return MODELS.build(
        dict(
            type='mmpretrain.NonLinearNeck',
            in_channels=in_dims,
            hid_channels=hidden_dims,
            out_channels=out_dims,
            num_layers=number,
            with_last_bn_affine=False,
            with_avg_pool=False,
            norm_cfg=dict(type=GlobalBatchNorm),
        )
    )


def unit(vectors: Tensor) -> Tensor:
    """Vectors (B, D) of length 1, at least fp32."""
    return F.normalize(widen(vectors), dim=1)
