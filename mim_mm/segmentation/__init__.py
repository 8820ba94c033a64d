"""Semantic segmentation on mmsegmentation, the extra ``[seg]``: recipes name this room in their ``custom_imports``.

It is no part of the registries' own lists, so that no other run imports mmsegmentation.
"""

import importlib.util

if importlib.util.find_spec('mmseg') is None:
    # No ImportError: mmengine would put its own, which does not say what to do, in its place.
    raise RuntimeError(
        "segmentation recipes need mmsegmentation, which is not installed: pip install 'mim_mm[seg]' (no compiler)"
    )

from mim_mm.segmentation import backbones, class_check, heads, mask_pairs, metric, segmentors  # noqa: E402, F401
