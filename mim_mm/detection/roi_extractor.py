"""RoI features under autocast without rounded boxes."""

from __future__ import annotations

from mmdet.models.roi_heads.roi_extractors import SingleRoIExtractor
from torch import Tensor

from mim_mm.registry import MODELS


@MODELS.register_module()
class FullPrecisionRoIExtractor(SingleRoIExtractor):
    """mmdet's ``SingleRoIExtractor`` with boxes that stay fp32 under autocast; same arguments.

    The parent casts the RoIs to the type of the features. bf16 has 8 significant bits, so a box edge between 512 and
    1024 pixels would be rounded to a multiple of 4 (fp16: 0.5), for training targets and for inference. Features go to
    RoIAlign in fp32 instead, which is what its kernels compute in anyway; the heads return to autocast by themselves.
    """

    def forward(self, feats: tuple[Tensor, ...], rois: Tensor, roi_scale_factor: float | None = None) -> Tensor:
        """Maps (B, C, H_l, W_l) and rois (n, 5) as (image, x1, y1, x2, y2) in pixels -> (n, C, h, w) in fp32."""
        return super().forward(tuple(feat.float() for feat in feats), rois.float(), roi_scale_factor)
