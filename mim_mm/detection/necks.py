"""Pyramids from the single-scale maps of a plain ViT."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch.nn.functional as F
from mmcv.cnn import build_norm_layer
from mmdet.registry import MODELS as MMDET_MODELS
from mmengine.model import BaseModule
from mmpretrain.models.utils import LayerNorm2d
from torch import Tensor, nn

from mim_mm.registry import MODELS


def _norm(norm_cfg: dict, channels: int) -> nn.Module:
    """A norm for (B, C, H, W); ``LN2d`` is mmpretrain's, which mmdet's registries do not know by that name."""
    options = dict(norm_cfg)
    if options['type'] == 'LN2d':
        options.pop('type')
        return LayerNorm2d(channels, **options)
    return build_norm_layer(options, channels)[1]


def _rescale(channels: int, scale: float, norm_cfg: dict, halve: bool) -> tuple[nn.Module, int]:
    """Module that multiplies height and width by ``scale``, and its number of output channels.

    Up: one 2x2 deconvolution a factor of two, norm and GELU between two of them (none after the last). ``halve``
    halves the channels at each. Down: max-pooling.
    """
    power = math.log2(scale) if scale > 0 else math.nan
    if power != int(power):
        raise ValueError(f'scale={scale} is no power of two: use 4, 2, 1, 0.5, ...')
    power = int(power)
    if power <= 0:
        return (nn.Identity() if power == 0 else nn.MaxPool2d(2**-power, 2**-power)), channels
    steps: list[nn.Module] = []
    for step in range(power):
        if step:
            steps += [_norm(norm_cfg, channels), nn.GELU()]
        out = channels // 2 if halve else channels
        steps.append(nn.ConvTranspose2d(channels, out, kernel_size=2, stride=2))
        channels = out
    return nn.Sequential(*steps), channels


def _spread(inputs: Sequence[Tensor], count: int) -> list[Tensor]:
    if len(inputs) not in (1, count):
        raise ValueError(
            f'The backbone returns {len(inputs)} maps for {count} scales: set out_indices to one or to {count} blocks.'
        )
    return list(inputs) * count if len(inputs) == 1 else list(inputs)


@MODELS.register_module()
class DeconvPyramid(BaseModule):
    """Adaptor of Li et al. 2021 (Benchmarking detection transfer): ViT maps to an FPN's inputs.

    Args:
        in_channels: channels d of the ViT maps; every level keeps d.
        scales: factor of each level. (4, 2, 1, 0.5) turns stride 16 into 4, 8, 16, 32; a patch of 8 gives
            strides 4, 8, 16 with (2, 1, 0.5).
        norm_cfg: norm between two deconvolutions: GN (32 groups), BN, SyncBN or LN2d.
        fpn: config of mmdet's ``FPN``, run on the levels; its ``in_channels`` are filled in. mmdet's
            detectors take a single neck, hence the nesting.

    Input: one map (B, d, h, w), used for all levels, or one for each level. Output: tuple of maps.

    Raises:
        ValueError: A scale that is no power of two; a number of maps that fits neither one nor ``scales``.
    """

    def __init__(
        self,
        in_channels: int,
        scales: Sequence[float] = (4, 2, 1, 0.5),
        norm_cfg: dict | None = None,
        fpn: dict | None = None,
        init_cfg=None,
    ):
        super().__init__(init_cfg)
        norm_cfg = norm_cfg or dict(type='GN', num_groups=32)
        self.levels = nn.ModuleList(_rescale(in_channels, s, norm_cfg, halve=False)[0] for s in scales)
        self.fpn = None
        if fpn is not None:
            self.fpn = MMDET_MODELS.build({'in_channels': [in_channels] * len(self.levels), **fpn})

    def forward(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        maps = tuple(level(x) for level, x in zip(self.levels, _spread(inputs, len(self.levels))))
        return maps if self.fpn is None else tuple(self.fpn(maps))


@MODELS.register_module()
class SimplePyramid(BaseModule):
    """Simple feature pyramid of ViTDet (Li et al. 2022, section 3): every level from the last map, no top-down path.

    Args:
        in_channels: channels of the ViT map.
        out_channels: channels of every level.
        scales: factor of each level, see :class:`DeconvPyramid`; deconvolutions halve the channels.
        num_outs: levels returned; those beyond ``scales`` are the last one, taken at every second position.
        norm_cfg: norm of the deconvolutions and of the 1x1 and 3x3 convolutions.

    Input: tuple of maps, the last is used, (B, C, h, w). Output: tuple of ``num_outs`` maps.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int = 256,
        scales: Sequence[float] = (4, 2, 1, 0.5),
        num_outs: int = 5,
        norm_cfg: dict | None = None,
        init_cfg=None,
    ):
        super().__init__(init_cfg)
        if num_outs < len(scales):
            raise ValueError(f'num_outs={num_outs} is below the {len(scales)} scales: raise it or remove scales.')
        norm_cfg = norm_cfg or dict(type='LN2d', eps=1e-6)
        self.num_outs = num_outs
        self.levels = nn.ModuleList()
        for scale in scales:
            rescale, channels = _rescale(in_channels, scale, norm_cfg, halve=True)
            self.levels.append(
                nn.Sequential(
                    rescale,
                    nn.Conv2d(channels, out_channels, 1, bias=False),
                    _norm(norm_cfg, out_channels),
                    nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False),
                    _norm(norm_cfg, out_channels),
                )
            )

    def forward(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        outs = [level(inputs[-1]) for level in self.levels]
        while len(outs) < self.num_outs:
            outs.append(F.max_pool2d(outs[-1], kernel_size=1, stride=2))
        return tuple(outs)
