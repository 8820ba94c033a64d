"""Scores and box deltas of Mask R-CNN in fp32 under autocast.

bf16 has 8 significant bits. The RPN keeps the best 1000 or 2000 of some 100,000 anchors of a map by their score, of
which it can tell apart a few hundred values: which of equals are kept is chance. A delta of 1 is off by 0.004 of the
anchor, 2 px of 512. The layers that give both have 0.1 % of a detector's FLOPs; those before them stay under autocast.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from mmdet.models.dense_heads import RPNHead
from torch import Tensor, nn

from mim_mm.registry import MODELS


def _in_fp32(layer: nn.Module, x: Tensor) -> Tensor:
    with torch.autocast(x.device.type, enabled=False):
        return layer(x.to(layer.weight.dtype))


@MODELS.register_module()
class FullPrecisionRPNHead(RPNHead):
    """mmdet's ``RPNHead`` whose last layers are not autocast; same arguments, same names of parameters."""

    def forward_single(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """A map (B, C, H, W) -> scores (B, A, H, W) and deltas (B, 4 A, H, W), fp32."""
        x = F.relu(self.rpn_conv(x))
        return _in_fp32(self.rpn_cls, x), _in_fp32(self.rpn_reg, x)


@MODELS.register_module()
class FullPrecisionLinear(nn.Linear):
    """``Linear`` that is not autocast: ``cls_predictor_cfg`` and ``reg_predictor_cfg`` of mmdet's box heads."""

    def forward(self, x: Tensor) -> Tensor:
        """(n, in_features) of any type -> (n, out_features) in the type of the weights."""
        with torch.autocast(x.device.type, enabled=False):
            return super().forward(x.to(self.weight.dtype))
