"""mmdet's two-stage detectors, told how deep each of their parameters lies (for layer-wise learning rates)."""

from __future__ import annotations

from mmdet.models.detectors import CascadeRCNN, MaskRCNN

from mim_mm.registry import MODELS


class _LayerDepth:
    """Delegates ``get_layer_depth`` to the backbone; necks and heads lie above all of its blocks."""

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
class MIMMaskRCNN(_LayerDepth, MaskRCNN):
    """mmdet's ``MaskRCNN`` with ``get_layer_depth``; same arguments."""


@MODELS.register_module()
class MIMCascadeRCNN(_LayerDepth, CascadeRCNN):
    """mmdet's ``CascadeRCNN`` with ``get_layer_depth``; same arguments."""
