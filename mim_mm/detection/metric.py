"""COCO evaluation by faster-coco-eval, refused at the start of a run where it cannot work."""

from __future__ import annotations

from importlib.util import find_spec

from mmdet.evaluation import metrics

from mim_mm.registry import METRICS

# Not in mmdet 3.3.0, the last upstream release.
_Base = getattr(metrics, 'FasterCocoMetric', metrics.CocoMetric)


@METRICS.register_module()
class FastCocoMetric(_Base):
    """mmdet's ``FasterCocoMetric``; same arguments and keys as ``CocoMetric``, and the same values to three decimals.

    mmdet's own class runs without faster-coco-eval until the first evaluation, hours into training, and fails there.

    Raises:
        ImportError: faster-coco-eval is not installed, or the installed mmdet has no ``FasterCocoMetric``.
    """

    def __init__(self, *args, **kwargs):
        if _Base is metrics.CocoMetric:
            raise ImportError('this mmdet has no FasterCocoMetric: use onedl-mmdetection, or type=CocoMetric')
        if find_spec('faster_coco_eval') is None:
            raise ImportError('faster-coco-eval is not installed: pip install faster-coco-eval, or use type=CocoMetric')
        super().__init__(*args, **kwargs)
