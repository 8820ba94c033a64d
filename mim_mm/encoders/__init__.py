"""Adapters that let an mmpretrain backbone encode under a MaskPlan."""

from mim_mm.encoders import hivit, vit  # noqa: F401  (they add their backbones to ADAPTERS)
from mim_mm.encoders.base import ADAPTERS, Adapter, Grid, adapter_of, build_backbone

__all__ = ['ADAPTERS', 'Adapter', 'Grid', 'adapter_of', 'build_backbone']
