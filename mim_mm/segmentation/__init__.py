"""Semantic segmentation on mmsegmentation, the extra ``[seg]``: recipes name this room in their ``custom_imports``.

It is no part of the registries' own lists, so that no other run imports mmsegmentation. Without that package recipes
can still be read and planned; a run of one is refused (:func:`mim_mm.engine.start.guard.check_extra`).
"""

from importlib.util import find_spec

if find_spec('mmseg') is not None:
    from mim_mm.segmentation import backbones, class_check, heads, mask_pairs, metric, segmentors  # noqa: F401
