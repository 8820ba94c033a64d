"""mmdet's two-stage detectors, told how deep each of their parameters lies (for layer-wise learning rates)."""

from __future__ import annotations

from mmdet.models.detectors import CascadeRCNN, MaskRCNN
from torch import Tensor

from mim_mm.registry import MODELS


class _PlainViTDetector:
    """``get_layer_depth`` of the backbone (necks and heads lie above its blocks), and a check of the strides."""

    def extract_feat(self, batch_inputs: Tensor) -> tuple[Tensor, ...]:
        """Images (B, 3, H, W) -> maps of the neck.

        Raises:
            ValueError: A map's stride differs from that of its anchors. Nothing else would notice: training runs, and
                the boxes are simply wrong by a factor, as with a patch size of 8 under a pyramid made for 16.
        """
        maps = super().extract_feat(batch_inputs)
        wanted = [tuple(stride) for stride in self.rpn_head.prior_generator.strides]
        height, width = batch_inputs.shape[-2:]
        # Sides that a stride does not divide (800 px, stride 64) are rounded up or down by the layers.
        fits = [
            abs(width / x - m.shape[-1]) < 1 and abs(height / y - m.shape[-2]) < 1
            for m, (x, y) in zip(maps, wanted, strict=False)
        ]
        if len(maps) != len(wanted) or not all(fits):
            found = [(round(width / m.shape[-1]), round(height / m.shape[-2])) for m in maps]
            raise ValueError(
                f'the neck gives maps of strides {found} (x, y), the anchors are made for {wanted}: correct '
                "model.rpn_head.anchor_generator.strides and both roi_extractors' featmap_strides, or the neck's scales"
            )
        return maps

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """(depth, number of depths) of the parameter ``param_name``: 0 patch embedding, i + 1 block i, last the rest.

        Raises:
            NotImplementedError: The backbone cannot tell the depth of its parameters.
        """
        if not hasattr(self.backbone, 'get_layer_depth'):
            raise NotImplementedError(
                f'{type(self.backbone).__name__} has no get_layer_depth: use WindowedViT, or train without layer decay.'
            )
        return self.backbone.get_layer_depth(param_name, f'{prefix}backbone.')


@MODELS.register_module()
class MIMMaskRCNN(_PlainViTDetector, MaskRCNN):
    """mmdet's ``MaskRCNN`` with ``get_layer_depth``; same arguments."""


@MODELS.register_module()
class MIMCascadeRCNN(_PlainViTDetector, CascadeRCNN):
    """mmdet's ``CascadeRCNN`` with ``get_layer_depth``; same arguments."""
