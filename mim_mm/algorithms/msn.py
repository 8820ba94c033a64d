"""MSN: Masked Siamese Networks for Label-Efficient Learning (Assran et al., ECCV 2022, arXiv 2204.07141)."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from itertools import groupby
from types import MappingProxyType

import torch
from mmengine.dist import all_reduce, get_world_size
from torch import Tensor, nn
from torch.nn import functional as F

from mim_mm.algorithms.base import Pretraining, Terms
from mim_mm.algorithms.batch_norm import GlobalBatchNorm
from mim_mm.algorithms.distillation import cross_entropy, entropy_of, widen
from mim_mm.algorithms.teacher import Teacher, frozen_copy
from mim_mm.encoders import build_backbone, encoder_of
from mim_mm.encoders.initial import init_dino, init_msn
from mim_mm.encoders.packed import pack_plan
from mim_mm.encoders.positions import plain_drop_path
from mim_mm.masking.plan import host_index
from mim_mm.registry import MODELS

# Of the release, whose schedules are made for 1.25 of the training.
MOMENTUM = MappingProxyType(dict(start=0.996, end=1.0, shape='linear', stretch=1.25))


@MODELS.register_module()
class MSN(Pretraining):
    """Anchors, of which the large ones lose patches, are to be assigned to prototypes as a whole view of the image is.

    Views are one target, then anchors: large ones of the same size, of which the masker drops patches, and small ones,
    which stay whole. The teacher sees the target alone. With unit vectors z (anchor) and t (target) behind encoder and
    head, and unit prototypes q:

    * ``p = softmax(z q / temperature)``, ``w = softmax(t q / temperature) ** (1 / sharpen)``, made to sum to one, then
      balanced over the prototypes by ``sinkhorn`` rounds of Sinkhorn's iteration over the batch of all ranks.
    * ``loss_assign``: the mean over anchors of ``-sum_K w log p``.
    * ``loss_memax``: ``memax_weight * (log K - H(mean of p))``, the mean over the anchors of all ranks.
    * ``loss_entropy``, where it has a weight (the release's recipe has 0): the mean of ``H(p)``.

    The head runs once for each size of anchors, so that its BatchNorms see large and small ones apart; those of the
    teacher normalise by their own batch and keep their own buffers. Each part of a masker with several is an anchor.

    Args:
        backbone: config of ``mmpretrain.VisionTransformer`` with a class token; positions are learned, and resampled to
            small views by the plain ratio.
        masker: what the large anchors lose; ``RandomMasking(ratio=0.15, shared=True)`` in the release's ViT-S. It sees
            their patch embeddings with positions.
        prototypes: K.
        hidden_dims, out_dims: of the head of three layers.
        temperature: of anchors and target.
        sharpen: temperature on top of it for the target.
        sinkhorn: rounds; 0 leaves the target as it is.
        memax_weight, entropy_weight: of the losses.
        momentum: of the teacher, see :func:`mim_mm.algorithms.teacher.build_momentum`.
        data_preprocessor: as :class:`Pretraining`; ``mmpretrain.SelfSupDataPreprocessor`` takes lists.

    Raises:
        ValueError: a temperature that is not positive, a negative weight, a backbone without class token.
    """

    drops_tokens = True
    batch_statistics = 'Sinkhorn assignments, the mean prediction and BatchNorm statistics of the batch'

    def __init__(
        self,
        backbone: dict,
        masker: dict,
        prototypes: int = 1024,
        hidden_dims: int = 2048,
        out_dims: int = 256,
        temperature: float = 0.1,
        sharpen: float = 0.25,
        sinkhorn: int = 3,
        memax_weight: float = 1.0,
        entropy_weight: float = 0.0,
        momentum: float | Mapping | Sequence = MOMENTUM,
        data_preprocessor: dict | None = None,
        init_cfg: dict | list | None = None,
    ) -> None:
        super().__init__(masker, data_preprocessor, init_cfg)
        if min(temperature, sharpen) <= 0 or min(memax_weight, entropy_weight, sinkhorn) < 0:
            raise ValueError(
                f'temperature={temperature} and sharpen={sharpen} must be above 0, memax_weight={memax_weight}, '
                f'entropy_weight={entropy_weight} and sinkhorn={sinkhorn} not below'
            )
        self.backbone = build_backbone(backbone, 'encode')
        plain_drop_path(self.backbone)
        self.encoder = encoder_of(self.backbone)
        if not self.encoder.num_prefix:
            raise ValueError('the backbone has no class token (with_cls_token=False), which this method assigns')
        init_msn(self.backbone)
        self.head = head_of(self.encoder.width, hidden_dims, out_dims)
        bound = out_dims**-0.5
        self.prototypes = nn.Parameter(torch.empty(prototypes, out_dims).uniform_(-bound, bound))
        self.teacher = nn.ModuleDict(dict(backbone=frozen_copy(self.backbone), head=frozen_copy(self.head)))
        self.teacher_encoder = encoder_of(self.teacher['backbone'])
        self.teachers = [Teacher({name: f'teacher.{name}' for name in self.teacher}, momentum, buffers='own')]
        self.temperature, self.sharpen, self.sinkhorn = temperature, sharpen, sinkhorn
        self.memax_weight, self.entropy_weight = memax_weight, entropy_weight

    def init_weights(self) -> None:
        """As the release; a backbone with an ``init_cfg`` of its own (a checkpoint to go on from) as that says."""
        super().init_weights()
        if self.backbone.init_cfg is None:
            init_msn(self.backbone)
        self.renew_teachers()

    @property
    def num_prototypes(self) -> int:
        """K, which ``CollapseHook`` measures entropies against."""
        return len(self.prototypes)

    def loss(self, inputs: Sequence[Tensor], data_samples: list | None = None) -> dict[str, Tensor]:
        """The losses of one step and what is watched.

        Args:
            inputs: normalised views, each (B, C, h, w): the target, large anchors of its size, small anchors.
            data_samples: ignored; unlabelled images have none.

        Returns:
            ``loss_assign``, ``loss_memax`` and perhaps ``loss_entropy``; ``anchor_entropy``, the mean of H(p) in nats;
            ``teacher_entropy``, that of the targets, and ``teacher_spread``, the entropy of their mean over the batch
            before Sinkhorn, which near 0 names one prototype for all images.
        """
        views = self.views(inputs)
        anchors, image = self.anchors(views[1:])
        with torch.no_grad():
            features = self.teacher_encoder.encode_whole(views[0])[0][:, 0]
            taught = self.teacher['head'](features)
        with torch.autocast(views[0].device.type, enabled=False):
            log_probs = self.similarity(anchors).log_softmax(dim=1)
            with torch.no_grad():
                sharp = (self.similarity(taught) / self.sharpen).softmax(dim=1)
                target = balanced(sharp, self.sinkhorn)
            probs = log_probs.exp()
            entropy = entropy_of(probs).mean()
            mean = mean_over_ranks(probs)
            losses = dict(
                loss_assign=cross_entropy(target[image], log_probs).mean(),
                loss_memax=self.memax_weight * (math.log(self.num_prototypes) - entropy_of(mean)),
            )
            if self.entropy_weight:
                losses['loss_entropy'] = self.entropy_weight * entropy
        self.seen_features = features
        metrics = dict(
            anchor_entropy=entropy,
            teacher_entropy=entropy_of(target).mean(),
            teacher_spread=entropy_of(sharp.mean(dim=0)),
        )
        # The mean prediction is one of all ranks already, and its gradient weighed.
        return self.outcome(
            Terms(losses, metrics), lambda: {name: len(image) for name in losses if name != 'loss_memax'}
        )

    def similarity(self, vectors: Tensor) -> Tensor:
        """Cosines (B, K) of vectors (B, D) and prototypes over the temperature, at least fp32."""
        return F.normalize(widen(vectors), dim=1) @ F.normalize(self.prototypes, dim=1).T / self.temperature

    def anchors(self, views: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """What student and head make of the anchors, (A, out), and the image of each, long (A,).

        Args:
            views: large ones first.
        """
        batch, found, image = len(views[0]), [], []
        for number, (_, group) in enumerate(groupby(views, key=lambda view: view.shape[-2:])):
            pixels = torch.cat(list(group))
            tokens = self.encoder.embed(pixels)
            if number == 0:
                features, row = self.drop(tokens)
            else:
                features = self.encoder.encode_tokens(tokens)[0][:, 0]
                row = torch.arange(len(tokens), device=tokens.device)
            found.append(self.head(features))
            image.append(row % batch)
        return torch.cat(found), torch.cat(image)

    def drop(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Class tokens (R, D) of the R parts that the masker makes of embedded views (V, N, D); the view of each."""
        plan = self.draw_plan(tokens, self.mask_generator)
        view = host_index([row // plan.num_parts for row in plan.rows()[0]], tokens.device)
        if plan.uniform:
            return self.encoder.encode(tokens, plan.visible)[:, 0], view
        prefix = self.encoder.num_prefix
        packing = pack_plan(plan, prefix)
        first = packing.starts[:-1].long()
        # Sequences lie sorted by length; where the decoder would put its class tokens says which is which.
        line = packing.destination[first] // (prefix + plan.num_patches)
        return self.encoder.encode_packed(tokens, packing)[first[line.argsort()]], view

    def views(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """The views of a batch.

        Raises:
            ValueError: they are not a list of a target and an anchor of its size, or more.
        """
        if isinstance(inputs, Tensor) or len(inputs) < 2 or inputs[0].shape != inputs[1].shape:
            shapes = tuple(inputs.shape) if isinstance(inputs, Tensor) else [tuple(view.shape) for view in inputs]
            raise ValueError(
                f'inputs has shape {shapes}: MSN learns from several views of an image, a target and a large anchor of '
                'one size first; give a pipeline with mim_mm.MultiCrop and default_collate '
                '(configs/_base_/datasets/imagenet_msn_views.py)'
            )
        return list(inputs)


def head_of(width: int, hidden_dims: int, out_dims: int) -> nn.Sequential:
    """Three linear layers, BatchNorm over all ranks and GELU between; matrices normal (0.02), biases zero."""
    head = nn.Sequential(
        OrderedDict(
            fc1=nn.Linear(width, hidden_dims),
            bn1=GlobalBatchNorm(hidden_dims),
            gelu1=nn.GELU(),
            fc2=nn.Linear(hidden_dims, hidden_dims),
            bn2=GlobalBatchNorm(hidden_dims),
            gelu2=nn.GELU(),
            fc3=nn.Linear(hidden_dims, out_dims),
        )
    )
    init_dino(head)  # of which it has linear layers alone
    return head


@torch.no_grad()
def balanced(probs: Tensor, rounds: int) -> Tensor:
    """Assignments (B, K) after rounds of Sinkhorn's iteration: each prototype gets as much of the batch of all ranks as
    the others, then each image is made to sum to one. A collective a round."""
    floor = torch.finfo(probs.dtype).tiny  # a prototype that nobody is near may have got nothing at all
    for _ in range(rounds):
        share = probs.sum(dim=0)
        all_reduce(share)
        probs = probs / share.clamp(min=floor)
        probs = probs / probs.sum(dim=1, keepdim=True)
    return probs


def mean_over_ranks(probs: Tensor) -> Tensor:
    """The mean (K,) over the rows of all ranks; gradients, averaged over ranks, are those of one rank with all rows."""
    own = probs.sum(dim=0)
    total = torch.cat([own.detach(), own.new_full((1,), len(probs))])
    all_reduce(total)
    mean = own * get_world_size() / total[-1]
    return total[:-1] / total[-1] + (mean - mean.detach())
