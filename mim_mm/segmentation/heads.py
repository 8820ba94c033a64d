"""mmseg's heads with the scores of the classes in fp32 under autocast.

bf16 has 8 significant bits: two scores near 10 that differ by less than 0.06 are one, and so are their probabilities in
the loss after the scores were enlarged to the size of the image. The last convolution has 0.1 % of a head's FLOPs.
"""

from __future__ import annotations

import torch
from mmseg.models.decode_heads import FCNHead, UPerHead
from torch import Tensor

from mim_mm.registry import MODELS


class _FullPrecisionScores:
    def cls_seg(self, feat: Tensor) -> Tensor:
        """Map (B, C, h, w) of any type -> scores (B, classes, h, w) in the type of the weights."""
        with torch.autocast(feat.device.type, enabled=False):
            return super().cls_seg(feat.to(self.conv_seg.weight.dtype))


@MODELS.register_module()
class FullPrecisionUPerHead(_FullPrecisionScores, UPerHead):
    """mmseg's ``UPerHead`` (Xiao et al. 2018); same arguments, same names of parameters."""


@MODELS.register_module()
class FullPrecisionFCNHead(_FullPrecisionScores, FCNHead):
    """mmseg's ``FCNHead``; same arguments, same names of parameters."""
