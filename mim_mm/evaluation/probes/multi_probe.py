"""Many linear probes in one training run, on one shared forward pass of a frozen encoder.

Heads differ in the blocks they read, in pooling, in normalisation and in learning rate. They share no parameter, so
minimising the sum of their losses, each with its own rate, is training each alone; the encoder, which is nearly all of
the cost, runs once for all of them. Oquab et al., "DINOv2", TMLR 2024, and its ``eval/linear.py``,
whose grid is ``blocks=(1, 4), pooling=('cls', 'cls_mean'), norm=(False,)``, 52 heads.
"""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from mmengine.model import BaseModel
from torch import Tensor, nn
from torch._subclasses import FakeTensor
from torch.nn import functional as F

from mim_mm.encoders import reader_of
from mim_mm.evaluation.probes.probe_features import POOLINGS, pool, pooled_width, read_blocks
from mim_mm.registry import MODELS

# DINOv2's rates for a batch of 256 images.
RATES = (1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 1e-1)


class _ManyLinears(torch.autograd.Function):
    """All heads of one feature in one batched product; each head's parameters get their own part of the gradient.

    Batched and not one wide product, because then a head's numbers depend least on what other heads there are. The
    feature is frozen and gets no gradient. forward: feature (B, W), weight (R, C, W), bias (R, C), both detached, and
    the parameters that they consist of: R weights, then R biases. Returns (R, B, C).
    """

    @staticmethod
    def forward(ctx, feature, weight, bias, *parameters):
        ctx.save_for_backward(feature)
        return torch.baddbmm(bias[:, None], feature.expand(len(weight), -1, -1), weight.mT)

    @staticmethod
    def backward(ctx, gradient):
        (feature,) = ctx.saved_tensors
        weights = torch.bmm(gradient.mT, feature.expand(len(gradient), -1, -1))
        return None, None, None, *weights.unbind(), *gradient.sum(1).unbind()


class _MeanOfSum(torch.autograd.Function):
    """Mean of the finite losses as the value, the sum's gradient: each head is trained by its own loss alone."""

    @staticmethod
    def forward(ctx, losses):
        ctx.heads = len(losses)
        finite = losses.isfinite()
        return torch.where(finite, losses, 0).sum() / finite.sum()  # without waiting for a GPU

    @staticmethod
    def backward(ctx, gradient):
        return gradient.expand(ctx.heads)


def _joined(parameters: Sequence[nn.Parameter]) -> Tensor:
    """Equally shaped parameters as one tensor (R, ...) of the same memory, to which they are moved if need be.

    Moving a model to another device, or loading weights by assignment, gives each parameter memory of its own again.
    """
    first = parameters[0]
    if isinstance(first, FakeTensor):  # only shapes are asked for (mim_mm.cost): there is no memory to share
        return torch.stack([p.detach() for p in parameters])
    step = first.numel() * first.element_size()
    if any(
        not p.is_contiguous()
        or p.data_ptr() != first.data_ptr() + i * step
        or p.untyped_storage().data_ptr() != first.untyped_storage().data_ptr()
        for i, p in enumerate(parameters)
    ):
        for parameter, place in zip(parameters, torch.stack([p.detach() for p in parameters])):
            parameter.data = place
    return first.detach().as_strided((len(parameters), *first.shape), (first.numel(), *first.stride()))


@dataclass(frozen=True)
class Probe:
    """One head: the last ``blocks`` blocks, a pooling, BatchNorm or not, a learning rate for 256 images."""

    blocks: int
    pooling: str
    norm: bool
    lr: float

    @property
    def name(self) -> str:
        """For example ``last4_cls_mean_bn_lr0.001``."""
        return f'last{self.blocks}_{self.pooling}{"_bn" if self.norm else ""}_lr{self.lr:g}'


def _check(what: str, values: Sequence, right, rule: str) -> None:
    wrong = [v for v in values if not right(v)]
    if wrong or not len(values) or len(set(values)) != len(values):
        raise ValueError(f'head.{what}={list(values)}: {rule}, each once and at least one')


class ProbeGrid(nn.Module):
    """The heads: every combination of ``blocks``, ``pooling``, ``norm`` and ``lrs``.

    A head starts from N(0, 0.01) drawn from its own generator, seeded by the run's seed and its name: it starts and
    ends the same whatever other heads there are. BatchNorm has no affine part and normalises a feature for all rates.

    Args:
        width: D, width of the encoder's tokens.
        num_classes: number of classes.
        blocks: how many last blocks to join.
        pooling: of 'cls', 'mean', 'cls_mean', see :func:`mim_mm.evaluation.probes.probe_features.pool`.
        norm: without, with BatchNorm.
        lrs: learning rates for a batch of 256 images.

    Raises:
        ValueError: an empty list, a repeated or an unknown value.
    """

    def __init__(
        self,
        width: int,
        num_classes: int,
        blocks: Sequence[int] = (1, 4),
        pooling: Sequence[str] = POOLINGS,
        norm: Sequence[bool] = (False, True),
        lrs: Sequence[float] = RATES,
    ) -> None:
        super().__init__()
        _check('blocks', blocks, lambda v: isinstance(v, int) and v > 0, 'positive numbers of blocks')
        _check('pooling', pooling, lambda v: v in POOLINGS, f'use {POOLINGS}')
        _check('norm', norm, lambda v: isinstance(v, bool), 'use False and True')
        _check('lrs', lrs, lambda v: v > 0, 'positive learning rates')
        self.num_classes = num_classes
        self.features = list(itertools.product(blocks, pooling))
        self.probes = [Probe(b, p, n, float(lr)) for (b, p), n, lr in itertools.product(self.features, norm, lrs)]
        widths = {(b, p): pooled_width(width, b, p) for b, p in self.features}
        self.norms = nn.ModuleDict()
        if True in norm:
            for (b, p), size in widths.items():
                self.norms[f'last{b}_{p}'] = nn.BatchNorm1d(size, eps=1e-6, affine=False)
        self.linears = nn.ModuleDict()
        for probe in self.probes:
            # Without torch's own initialisation, which would draw from the global generator.
            linear = nn.utils.skip_init(nn.Linear, widths[probe.blocks, probe.pooling], num_classes)
            generator = torch.Generator().manual_seed((torch.initial_seed() ^ zlib.crc32(probe.name.encode())) % 2**63)
            nn.init.normal_(linear.weight, std=0.01, generator=generator)
            nn.init.zeros_(linear.bias)
            self.linears[self._key(probe)] = linear

    @staticmethod
    def _key(probe: Probe) -> str:
        return probe.name.replace('.', '_')  # torch allows no dot in the name of a module

    def forward(self, tokens: Sequence[Tensor], num_prefix: int) -> Iterator[Tensor]:
        """Logits (B, classes) of each head in the order of ``probes``; arguments of :meth:`stacked`."""
        for logits in self.stacked(tokens, num_prefix):
            yield from logits.unbind()

    def stacked(self, tokens: Sequence[Tensor], num_prefix: int) -> Iterator[Tensor]:
        """Logits (R, B, classes) of the R heads that see the same feature, one feature at a time, in their order.

        Args:
            tokens: tensors (B, P + N, D) of the last blocks, see ``read_blocks``.
            num_prefix: P.
        """
        for blocks, pooling in self.features:
            plain = pool(tokens, blocks, pooling, num_prefix)
            name = f'last{blocks}_{pooling}'
            normed = self.norms[name](plain) if name in self.norms else None
            own = [p for p in self.probes if (p.blocks, p.pooling) == (blocks, pooling)]
            for norm, same in itertools.groupby(own, lambda p: p.norm):
                heads = [self.linears[self._key(p)] for p in same]
                weights, biases = [h.weight for h in heads], [h.bias for h in heads]
                with torch.autocast(plain.device.type, enabled=False):  # fp32 under any optimizer wrapper
                    logits = _ManyLinears.apply(
                        normed if norm else plain, _joined(weights), _joined(biases), *weights, *biases
                    )
                yield logits

    def param_groups(self) -> list[dict]:
        """One optimizer group a head: its parameters, its name and ``lr_scale``, its rate for 256 images."""
        return [
            dict(params=list(self.linears[self._key(p)].parameters()), name=p.name, lr_scale=p.lr) for p in self.probes
        ]


@MODELS.register_module()
class MultiProbe(BaseModel):
    """A frozen encoder and a grid of linear heads on it.

    Args:
        backbone: mmpretrain's ViT, BEiT's ViT or HiViT. It stays in eval mode and gets no gradient.
        head: arguments of :class:`ProbeGrid` except ``width``.
        autocast: the encoder in bf16, the heads always in fp32, in training and in evaluation alike.
            'auto': on GPUs that have bf16.
        data_preprocessor: mmpretrain's ``ClsDataPreprocessor`` by default.
        init_cfg: as in mmengine.

    Optimise it with ``mim_mm.ProbeHeadsConstructor``.

    Raises:
        ValueError: A backbone without class token and a pooling that needs one, more blocks asked for than there are,
            or a grid that :class:`ProbeGrid` refuses.
    """

    def __init__(
        self,
        backbone: dict,
        head: dict,
        autocast: bool | str = 'auto',
        data_preprocessor: dict | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        if isinstance(data_preprocessor, dict):
            data_preprocessor = dict(data_preprocessor)
            data_preprocessor.setdefault('type', 'mmpretrain.ClsDataPreprocessor')
        super().__init__(data_preprocessor or dict(type='mmpretrain.ClsDataPreprocessor'), init_cfg)
        self.backbone = MODELS.build(backbone)
        self.backbone.requires_grad_(False)
        if autocast not in (True, False, 'auto'):
            raise ValueError(f"autocast={autocast!r}: use True, False or 'auto'")
        self.autocast = autocast
        encoder = reader_of(self.backbone)
        depth = len(encoder.blocks)
        self.num_prefix = encoder.num_prefix
        self.head = ProbeGrid(encoder.width, **head)
        needs_cls = [p for _, p in self.head.features if p != 'mean']
        if needs_cls and not encoder.num_prefix:
            raise ValueError(
                f'head.pooling={needs_cls[0]!r} needs a class token, which this {type(self.backbone).__name__} lacks: '
                "set model.head.pooling=['mean']"
            )
        self.depth = max(blocks for blocks, _ in self.head.features)
        if self.depth > depth:
            raise ValueError(
                f'head.blocks asks for the last {self.depth} blocks, the backbone has {depth}: lower model.head.blocks'
            )
        self.train()

    # For FiniteHook: heads that diverge are lost alone.
    may_diverge = ('head.',)

    def train(self, mode: bool = True) -> MultiProbe:
        """As always for the heads' BatchNorm; the encoder stays in eval mode (no drop path, no dropout)."""
        super().train(mode)
        self.backbone.train(False)
        return self

    def _bf16(self, device: torch.device) -> bool:
        if self.autocast == 'auto':
            return device.type == 'cuda' and torch.cuda.is_bf16_supported(including_emulation=False)
        return self.autocast

    def logits(self, inputs: Tensor) -> Iterator[Tensor]:
        """fp32 logits (R, B, classes), R heads at a time in the order of ``head.probes``; inputs (B, 3, H, W)."""
        kind = inputs.device.type
        with torch.autocast(kind, torch.bfloat16, enabled=self._bf16(inputs.device)):
            tokens = read_blocks(self.backbone, inputs, self.depth)
        yield from self.head.stacked(tokens, self.num_prefix)

    def forward(self, inputs: Tensor, data_samples: list | None = None, mode: str = 'tensor'):
        """mmengine's three modes.

        Returns:
            'tensor': name of a head -> logits (B, classes). 'loss': see :meth:`loss`. 'predict': the samples with
            ``probe_pred`` (H,), the class each head says, and ``probes``, the H heads.

        Raises:
            ValueError: another mode.
        """
        if mode == 'loss':
            return self.loss(inputs, data_samples)
        if mode == 'predict':
            return self.predict(inputs, data_samples)
        if mode == 'tensor':
            each = itertools.chain.from_iterable(logits.unbind() for logits in self.logits(inputs))
            return {probe.name: logits for probe, logits in zip(self.head.probes, each)}
        raise ValueError(f"mode is {mode!r}: use 'loss', 'predict' or 'tensor'")

    def loss(self, inputs: Tensor, data_samples: list) -> dict[str, Tensor]:
        """``loss``: mean of the heads' cross-entropies, with the gradient of their sum; ``lowest_ce``: the smallest.

        Heads with a rate that is too high may diverge; their loss is not finite then and not in the mean, and no other
        head notices.
        """
        labels = torch.cat([sample.gt_label for sample in data_samples])
        losses = []
        for logits in self.logits(inputs):
            targets = labels.expand(logits.shape[:2])
            losses.append(F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction='none').view_as(targets))
        losses = torch.cat(losses).mean(1)
        return dict(loss=_MeanOfSum.apply(losses), lowest_ce=losses.detach().nan_to_num(nan=float('inf')).min())

    def predict(self, inputs: Tensor, data_samples: list) -> list:
        """The samples with the class that each head says."""
        answers = torch.cat([logits.argmax(2) for logits in self.logits(inputs)]).T.cpu()
        if all('gt_label' in sample for sample in data_samples):  # in one transfer, the metric would make one a sample
            for sample, label in zip(data_samples, torch.cat([s.gt_label for s in data_samples]).cpu().split(1)):
                sample.set_gt_label(label)
        for sample, answer in zip(data_samples, answers):
            sample.set_field(answer, 'probe_pred')
            sample.set_field(self.head.probes, 'probes', field_type='metainfo')
        return data_samples

    def param_groups(self) -> list[dict]:
        """One optimizer group a head, see :meth:`ProbeGrid.param_groups`."""
        return self.head.param_groups()
